"""Published latencies of iPhones, iPads and Macs against the devices' priors: what ``nas compare-published`` shows.

    python benchmarks/published.py --data FOLDER --out benchmarks/results

Writes ``published.json`` and ``published.md``. Without ``--data`` the figures that come with the toolkit are taken.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from nas.core.files import write_json
from nas.core.provenance import host, versions
from nas.pipeline.published import compare_published, markdown


def main() -> None:
    """Compare, and write the result with where and how it was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with a table of published latencies")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    start = time.process_time()
    result = compare_published(options.data)
    machine = {key: value for key, value in host().items() if key != "name"}
    result |= {"host": machine, "versions": versions(), "cpu_seconds": round(time.process_time() - start, 1)}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "published.json", result)
    how = [
        f"Command: `python benchmarks/published.py --data FOLDER` on `{result['table']}`; nothing is drawn at random;",
        f"{result['cpu_seconds']} CPU seconds, {machine['system']}, {machine['logical_processors']} processors.",
    ]
    text = "\n".join([markdown(result), *how, ""])
    (options.out / "published.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
