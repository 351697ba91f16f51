"""Hypervolume against evaluations: our engines and public optimisers on problems whose exact front is known.

Runs are kept in a cache folder as they finish, so a killed benchmark loses the runs in progress at most (of slow peers
not even those), and calling it again does what is missing. Peers come with ``pip install --constraint constraints.txt
'.[bench]'``; rows of those that are not installed are left out, and the result says so.

    python benchmarks/search_efficiency.py --data DIR --out benchmarks/results
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch: times are of one thread

from search_problems import KINDS
from search_runs import ENGINES, group_of, missing, problem_names, run_all, tasks
from search_scores import score_all
from search_tables import to_markdown
from search_trainings import SETTINGS

from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions

NOTES = """\
Share of the exact front's hypervolume after that many evaluations: median (lowest-highest).

Synthetic problems: 20 slots x 9 options; limits on latency and memory that 2 to 3 % of random architectures keep;
latency additive, with a residual between neighbours (10 % of its spread) where quality has interactions; quality
additive, or with interactions between neighbours (35 %) and noise (3 %; noisy: 15 %); what an option adds to it is a
random share of its latency (related) or has nothing to do with it (unrelated). Scored is the true quality of what was
judged inside the limits; the corner is the limits and the empty architecture. Our engines know the table of costs, and
candidates over a limit cost them nothing; "infeasible rejected first" gives that alone to others. "Costs known" hands
qLogNEHVI the table as a deterministic model. All other peers learn costs from what they judge, as their interfaces
have it, and pay for every design.

Measured problems: accuracy and latency from public tables, no limits. NAS-Bench-201: connected cells, 12-epoch CIFAR-10
validation accuracy, {nb201} devices measured on all cells; the corner is the largest latency and the accuracy of
guessing. The tight corner is the worst of the true front and a tenth of its range beyond. Figures are medians over
devices of medians over seeds, in brackets the lowest and highest device. Accel-NASBench: the listed networks; peers'
other proposals count as the nearest listed one. Our engines and qLogNEHVI know every latency beforehand, other peers
learn it; an answer paid for once is free after that.

Trainings: the toy space with the quality of a short training of its own ({settings}), costs of this
host's prior. Its true front is not known: the share is of everything that any run trained.

Times are processor seconds of one thread at low priority on a shared machine, with loop and screening, without
judging; memory is the largest of any run's process, with all that it imports. "Stopped at" marks runs that were not
finished when this was written."""


def main() -> None:
    """Run what is missing and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for search_efficiency.json and .md")
    parser.add_argument("--data", type=Path, help="folder with the public tables; without it no measured problems")
    parser.add_argument("--cache", type=Path, default=Path("runs/search_efficiency"), help="folder of finished runs")
    parser.add_argument("--problems", help="only problems that begin with one of these, divided by ';'")
    parser.add_argument("--engines", help="only engines that begin with one of these, divided by ';'")
    parser.add_argument("--only", choices=("ours", "peers"), help="only our engines, or only the others")
    parser.add_argument("--trainings", action="store_true", help="also the toy space with real short trainings")
    parser.add_argument("--seeds", type=int, default=5, help="most seeds of any engine")
    parser.add_argument("--evaluations", type=int, default=1000, help="most evaluations of any engine")
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time")
    parser.add_argument("--report", action="store_true", help="write the tables of what there is, run nothing")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    problems = _chosen(problem_names(arguments.data, trainings=arguments.trainings), arguments.problems)
    engines = [
        name
        for name in _chosen(list(ENGINES), arguments.engines)
        if arguments.only is None or (ENGINES[name].package is None) == (arguments.only == "ours")
    ]
    todo = tasks(problems, engines, seeds=arguments.seeds, evaluations=arguments.evaluations, data=arguments.data)
    if not arguments.report:
        run_all(todo, arguments.cache, workers=arguments.workers)
    scored = score_all(todo, arguments.cache)
    document = make_document(scored)
    write_json(arguments.out / "search_efficiency.json", document)
    write_text_atomically(arguments.out / "search_efficiency.md", to_markdown(document))
    print(to_markdown(document))


def make_document(scored: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return everything that is published."""
    groups = {name: {key: scored[key] for key in scored if group_of(key) == name} for name in ("nb201", "anb")}
    trained = {key: runs for key, runs in scored.items() if group_of(key) == "tiny"}
    packages = {**versions(), **{name: _version(name) for name in ("pymoo", "botorch", "gpytorch")}}
    kept = ("python", "numpy", "scipy", "torch", "optuna", "pymoo", "botorch", "gpytorch")
    return {
        "schema": "nas/benchmark/2",
        "benchmark": "search_efficiency",
        "created_at": timestamp(),
        "notes": NOTES.format(nb201=len(groups["nb201"]), settings=SETTINGS).splitlines(),
        "host": {key: value for key, value in host().items() if key != "name"},
        "versions": {name: packages.get(name) for name in kept},
        "missing": sorted({package for name in ENGINES if (package := missing(name))}),
        "synthetic": {name: scored[name] for name in KINDS if name in scored} | trained,
        **groups,
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _chosen(names: list[str], starts: str | None) -> list[str]:
    return names if starts is None else [name for name in names if name.startswith(tuple(starts.split(";")))]


if __name__ == "__main__":
    main()
