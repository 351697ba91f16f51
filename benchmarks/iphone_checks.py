"""Published iPhone and Mac latencies against predictions: by the devices' files, and after five rows of a source.

Two parts. The Stable Diffusion UNet steps of Apple's table: five of its rows are fitted (``latency_models.rates``) and
the others predicted, over many draws. Nine relations that papers publish within one source: predicted from the prior,
then with rates fitted on up to five other rows of the same source. Nothing is left out when it comes out badly, and
what is assumed about a network whose structure is not published is said next to it.

    python benchmarks/iphone_checks.py --data FOLDER

``FOLDER`` is searched for ``apple_coreml.csv`` and ``published_device_latencies.csv``.
"""

from __future__ import annotations

import argparse
import platform
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from iphone_rows import apple_rows

from latency_models.rates import fit_rates, prior_ms
from nas.core.files import write_json
from nas.pipeline.published import ratios, times
from nas.pipeline.published_relations import relations
from nas.pipeline.published_rows import read_table, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.pipeline.published_relations import Relation
    from nas.pipeline.published_rows import Row

FITTED_ROWS = 5


def leave_out(rows: Sequence[Row], *, draws: int, seed: int) -> dict[str, object]:
    """Fit on five rows, predict the rest, over ``draws`` draws."""
    generator = np.random.default_rng(seed)
    prior = np.array([log(prior_ms(row.sample) / row.ms) for row in rows])
    errors: list[list[float]] = [[] for _ in rows]
    inside: list[bool] = []
    widths: list[float] = []
    for _ in range(draws):
        chosen = set(generator.choice(len(rows), size=FITTED_ROWS, replace=False).tolist())
        fit = fit_rates([rows[index].sample for index in sorted(chosen)])
        for index, row in enumerate(rows):
            if index in chosen:
                continue
            centre, sd = fit.predict(row.sample)
            errors[index].append(log(centre / row.ms))
            inside.append(abs(errors[index][-1]) <= 1.645 * sd)
            widths.append(1.645 * sd)
    every = np.array([error for own in errors for error in own])
    return {
        "rows": [
            {
                "network": row.network,
                "device": row.device,
                "published_ms": row.ms,
                "prior_ms": row.ms * exp(before),
                "fitted_ms_median": row.ms * exp(float(np.median(own))) if own else None,
            }
            for row, before, own in zip(rows, prior, errors, strict=True)
        ],
        "prior": summary(prior),
        "fitted": summary(every),
        "coverage_90": float(np.mean(inside)),
        "half_width_ratio": float(np.median(np.exp(widths))),
        "predictions": len(every),
    }


def summary(errors: np.ndarray) -> dict[str, float]:
    """Return median absolute error and shares within bounds, of logarithmic errors."""
    ratio = np.exp(np.abs(errors)) - 1.0
    return {
        "median_error": float(np.median(ratio)),
        "within_10": float(np.mean(ratio <= 0.10)),
        "within_25": float(np.mean(ratio <= 0.25)),
        "worst": float(ratio.max()),
    }


def check(relation: Relation) -> dict[str, object]:
    """Predict a relation from the prior and, where its source has other rows that can be described, after fitting."""
    before = [prior_ms(row.sample) for row in relation.rows]
    fitted = None
    used = relation.others[:FITTED_ROWS]
    if used:
        fit = fit_rates([row.sample for row in used])
        fitted = [fit.predict(row.sample)[0] for row in relation.rows]
    return {
        "name": relation.name,
        "published_ms": [row.ms for row in relation.rows],
        "prior_ms": before,
        "fitted_ms": fitted,
        "fitted_rows": len(used),
        "assumed": relation.assumed,
    }


def markdown(result: dict) -> str:  # type: ignore[type-arg]  # the JSON document
    """Return the tables."""
    apple = result["apple"]
    lines = [
        "# iPhone checks",
        "",
        f"Command: `python benchmarks/iphone_checks.py --data FOLDER`, seed {result['seed']}, {result['draws']} draws "
        f"of {FITTED_ROWS} rows; {result['machine']}. Published figures are other people's; predictions are ours.",
        "",
        "## Stable Diffusion UNet steps of apple/ml-stable-diffusion",
        "",
        "| | median error | within 10 % | within 25 % | worst |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, label in (("prior", "prior alone"), ("fitted", f"after {FITTED_ROWS} rows, rows left out")):
        shares = [apple[name][key] for key in ("median_error", "within_10", "within_25", "worst")]
        lines.append(f"| {label} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    lines += [
        "",
        f"90 % intervals after the fit held {apple['coverage_90']:.0%} of {apple['predictions']} predictions, "
        f"half-width a factor of {apple['half_width_ratio']:.2f} (median).",
        "",
        "| network | device | published ms | prior ms | fitted ms (median of draws) |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['network']} | {row['device']} | {row['published_ms']:,.0f} | {row['prior_ms']:,.0f} | "
        f"{'-' if row['fitted_ms_median'] is None else format(row['fitted_ms_median'], ',.0f')} |"
        for row in apple["rows"]
    ]
    lines += [
        "",
        "## Nine relations within one source",
        "",
        "Times relative to the last of each row. The fit uses other rows of the same source only, the first five that "
        "can be described; a dash says that there are none.",
        "",
        "| relation | published | prior | fitted | rows fitted | assumed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["relations"]:
        fitted = "-" if row["fitted_ms"] is None else ratios(row["fitted_ms"])
        lines.append(
            f"| {row['name']} | {ratios(row['published_ms'])} | {ratios(row['prior_ms'])} | {fitted} | "
            f"{row['fitted_rows'] or '-'} | {row['assumed'] or 'nothing'} |"
        )
    lines += ["", "| relation | published ms | prior ms | fitted ms |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row['name']} | {times(row['published_ms'])} | {times(row['prior_ms'])} | "
        f"{'-' if row['fitted_ms'] is None else times(row['fitted_ms'])} |"
        for row in result["relations"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the checks and write ``iphone_checks.json`` and ``.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data sets")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    path, lines = read_table(options.data)
    published, _ = rows_of(lines, where=str(path))
    result = {
        "machine": f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}",
        "seed": options.seed,
        "draws": options.draws,
        "apple": leave_out(apple_rows(options.data), draws=options.draws, seed=options.seed),
        "relations": [check(relation) for relation in relations(published)],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "iphone_checks.json", result)
    text = markdown(result)
    (options.out / "iphone_checks.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
