"""Few-shot latency prediction on devices that were left out, against simple baselines and published figures.

    python benchmarks/predictor_accuracy.py --data DIR --out benchmarks/results
    python benchmarks/predictor_accuracy.py --data DIR --test DIR2 --out results

DIR is a folder of the devbench layout: ``nb201``, ``fbnet``, ``ofa`` or ``anb`` followed by ``_archs.parquet``, and
latencies in ``nb201_latency.parquet``, ``fbnet_latency.parquet``, ``ofa_latency.parquet``, ``anb_perf.parquet``: a
column ``arch_idx`` and one column of milliseconds per device (``throughput_NAME_mean``: images a second). What is
missing is skipped with a notice. ``devices.csv`` (columns ``dataset``, ``device``, ``physical_device``) says which
columns are one machine; without it, ``NAME_1`` and ``NAME_32`` are.

With ``--data`` alone one machine at a time is left out. With ``--test`` every device of DIR2 is a target and all
devices of DIR are sources; architectures may lie in either folder, and a machine found in both is skipped. To judge
devices of your own, measure networks of one of the spaces, write their milliseconds beside ``arch_idx`` into such a
file, and give its folder as ``--test``.

Every finished cell (space, device, k, method, draw) is a line in ``OUT/predictor_accuracy_cells``, and a rerun goes on
from there; more draws, counts, methods or devices may be asked for. Use ``OMP_NUM_THREADS=1``: one core a job.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devbench import SPACES, load_space
from few_shot_runs import (
    LEFT_OUT,
    METHODS,
    Group,
    GroupRun,
    Plan,
    held_out_groups,
    left_out_groups,
    run_group,
    task_groups,
)
from few_shot_tables import as_records, ceilings, covered_spaces, device_means, markdown, method_means

from latency_models import transfer
from nas.core.errors import ConfigError, InputError, NasError
from nas.core.files import JsonLines, read_json, sha256_path, write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "predictor_accuracy"
COUNTS = (3, 5, 10, 20, 50, 100)
DEVICE_LIST = "devices.csv"


def main() -> None:
    """Run the benchmark and write its result."""
    options = parse_arguments()
    try:
        result = measure(options)
    except NasError as error:
        print(f"{error.message}\n{error.hint or ''}".strip(), file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    report = markdown(result)
    write_json(options.out / f"{NAME}.json", result)
    write_text_atomically(options.out / f"{NAME}.md", report)
    print(json.dumps(result) if options.json else report)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the devices to learn from")
    parser.add_argument("--test", type=Path, help="folder of the devices to judge; without it, one machine at a time")
    parser.add_argument("--out", type=Path, required=True, help="folder for JSON, Markdown and the finished cells")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--devices", nargs="+", help="judge these columns only")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--k", nargs="+", type=int, default=list(COUNTS), help="networks measured on the new device")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--tested", type=int, help="networks a device is judged on; all that were not measured if not given"
    )
    parser.add_argument("--source-networks", type=int, default=900, help="networks a source model sees")
    parser.add_argument(
        "--tasks", action="store_true", help="also rebuild NASFLAT's device sets, as far as the data go"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes, each busy with one machine")
    parser.add_argument("--report-only", action="store_true", help="run nothing, write the tables of what is finished")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of Markdown")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing and return everything on disk that the options ask for.

    Raises:
        NasError: Options or data cannot be used.
    """
    _check(options)
    folders = (options.data,) if options.test is None else (options.data, options.test)
    plan = Plan(
        folders=folders,
        work=options.out / f"{NAME}_cells",
        counts=tuple(sorted(set(options.k))),
        draws=options.draws,
        methods=tuple(name for name in METHODS if name in options.methods),
        seed=options.seed,
        tested=options.tested,
        source_networks=options.source_networks,
    )
    settings = _settings(plan)
    _claim(plan.work, settings)
    notices: list[str] = []
    groups: list[Group] = []
    noise: dict[str, Any] = {}
    for name in options.spaces:
        space = load_space(name, folders)
        if space is None:
            notices.append(f"{name}: no latencies in {', '.join(map(str, folders))}, skipped")
            continue
        found, said = _groups(space, options)
        notices += [*space.notices, *said]
        groups += found
        if found:
            noise[name] = ceilings(space)
    if not groups:
        raise InputError(f"{options.test or options.data}: no device to judge", hint="; ".join(notices) or None)
    for line in notices:
        print(line, file=sys.stderr)
    if not options.report_only:
        _run(groups, plan, options.jobs)
    cells = _cells(groups, plan)
    if not cells:
        raise InputError(
            f"{plan.work}: no finished cell for the asked devices, k and methods",
            hint="a device needs 30 measured networks more than k",
        )
    devices = device_means(cells)
    methods = method_means(devices)
    return {
        "taken_at": timestamp(),
        "host": host(),
        "versions": versions(),
        "settings": settings,
        "data": " and ".join(folder.name for folder in folders),
        "protocol": _protocol(options),
        "notices": notices,
        "spaces": covered_spaces(methods),
        "methods": methods,
        "devices": as_records(devices),
        "ceilings": noise,
        "timings": _timings(() if options.report_only else groups, plan),
        "once": [entry for path in sorted(plan.work.glob("once-*.jsonl")) for entry in JsonLines(path).read()],
    }


def _check(options: argparse.Namespace) -> None:
    wrong = [k for k in options.k if k < 3]
    if wrong:
        raise ConfigError(f"--k {wrong[0]}: at least 3 networks must be measured")
    for name in ("draws", "jobs", "source_networks"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 1")
    for folder in (options.data, options.test):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: is no folder")


def _groups(space: Any, options: argparse.Namespace) -> tuple[list[Group], list[str]]:
    names = tuple(options.devices) if options.devices else None
    if options.test is None:
        groups, notices = left_out_groups(space, names), []
    else:
        groups, notices = held_out_groups(space, options.test, names)
    if not any(group.sources for group in groups):
        return [], [*notices, f"{space.name}: no source devices, skipped"]
    if options.tasks:
        tasks, said = task_groups(space)
        groups, notices = [*groups, *tasks], [*notices, *said]
    return groups, notices


def _run(groups: list[Group], plan: Plan, jobs: int) -> None:
    plans = [plan if group.protocol == LEFT_OUT else replace(plan, counts=_task_counts(plan)) for group in groups]
    if jobs == 1:
        for group, one in zip(groups, plans, strict=True):
            run_group(group, one)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        list(pool.map(run_group, groups, plans))


def _task_counts(plan: Plan) -> tuple[int, ...]:
    return tuple(k for k in plan.counts if k == 20) or (20,)  # published figures are for 20 networks


def _cells(groups: list[Group], plan: Plan) -> list[dict[str, Any]]:
    cells = [cell for group in groups for cell in JsonLines(plan.work / f"{group.slug}.jsonl").read()]
    return [
        cell
        for cell in cells
        if cell["method"] in plan.methods
        and cell["draw"] < plan.draws
        and (cell["k"] in plan.counts or cell["protocol"] != LEFT_OUT)
    ]


def _timings(groups: Sequence[Group], plan: Plan) -> list[dict[str, Any]]:
    """Time one device of every space; kept, so that a rerun does not measure again."""
    file = JsonLines(plan.work / "timings.jsonl")
    known = {entry["space"]: entry for entry in file.read()}
    for group in groups:
        if group.space in known:
            continue
        space = load_space(group.space, plan.folders)
        assert space is not None  # the group came from it
        entry = GroupRun(group=group, plan=plan, space=space).timings()
        if entry is not None:
            file.append(entry)
            known[group.space] = entry
    return list(known.values())


def _protocol(options: argparse.Namespace) -> str:
    if options.test is None:
        return "One machine at a time is left out, with all its settings; all others are sources."
    return f"Targets are the devices of {options.test.name}, sources those of {options.data.name}."


def _settings(plan: Plan) -> dict[str, Any]:
    """What must be equal for cells to be of one experiment: data, seed, and the code that makes a cell."""
    beside = Path(__file__).parent
    code = [beside / f"few_shot_{name}.py" for name in ("runs", "baselines", "gp", "scores")]
    code += [*sorted(beside.glob("devbench*.py")), *sorted(Path(transfer.__file__).parent.glob("*.py"))]
    files = [path for folder in plan.folders for path in sorted(folder.glob("*.parquet")) if _is_ours(path)]
    files += [path for folder in plan.folders if (path := folder / DEVICE_LIST).is_file()]
    return {
        "data": _digest(files),
        "code": _digest(code),
        "seed": plan.seed,
        "tested": plan.tested,
        "source_networks": plan.source_networks,
    }


def _is_ours(path: Path) -> bool:
    return path.stem.split("_")[0] in SPACES


def _digest(paths: list[Path]) -> str:
    return hashlib.sha256("".join(sha256_path(path) for path in paths).encode()).hexdigest()


def _claim(work: Path, settings: dict[str, Any]) -> None:
    """Keep the settings beside the cells; refuse to mix cells of other settings."""
    path = work / "settings.json"
    if path.is_file():
        before = read_json(path)
        changed = [name for name, value in settings.items() if before.get(name) != value]
        if changed:
            raise ConfigError(
                f"{work}: holds cells of another {', '.join(changed)}", hint="give another --out, or remove that folder"
            )
        return
    write_json(path, settings)


if __name__ == "__main__":
    main()
