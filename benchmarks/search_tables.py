"""The tables of the search benchmark as Markdown."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from search_runs import group_of
from search_scores import CHECKPOINTS, TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Runs = list[dict[str, Any]]


def to_markdown(document: dict[str, Any]) -> str:
    """Return the whole document as Markdown."""
    lines = ["# Search efficiency", "", *document["notes"]]
    for name, engines in document["synthetic"].items():
        lines += ["", f"## {name[0].upper()}{name[1:]}", "", *_synthetic_table(name, engines)]
    for benchmark, title in (("nb201", "NAS-Bench-201"), ("anb", "Accel-NASBench")):
        if document[benchmark]:
            lines += ["", f"## {title}", "", *_measured_table(benchmark, document[benchmark])]
    lines += [line for section in document.get("sections", ()) for line in ("", *section)]
    if document["missing"]:
        lines += ["", "Not installed here, so not run: " + ", ".join(document["missing"]) + "."]
    machine, packages = document["host"], document["versions"]
    lines += [
        "",
        f"{document['created_at']}, {machine['logical_processors']} logical processors, {machine['system']}, "
        + ", ".join(f"{name} {value}" for name, value in packages.items() if value)
        + ".",
        "",
    ]
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return the median, and the lowest and highest in brackets when there are several."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.2f}-{max(values):.2f})"


def _synthetic_table(name: str, engines: dict[str, Runs]) -> list[str]:
    counts = CHECKPOINTS[group_of(name)]
    heads = ["engine", *map(str, counts), "seeds", "CPU ms per evaluation, first 200", "all", "peak memory MB"]
    lines = [
        f"| {' | '.join(heads)} |",
        f"| --- |{' --- |' * (len(counts) + 4)}",
    ]
    for engine, runs in engines.items():
        if not runs:
            continue
        cells = [spread([run["shares"][str(n)] for run in runs if str(n) in run["shares"]]) for n in counts]
        times = [by for run in runs if (by := run["cpu_ms_per_evaluation"])]
        early, last = [by["200"] for by in times if "200" in by], [by[max(by, key=int)] for by in times]
        cells += [_seeds(runs), _number(early), _number(last), _memory(runs)]
        lines.append(f"| {engine} | {' | '.join(cells)} |")
    return lines


def _measured_table(benchmark: str, problems: dict[str, dict[str, Runs]]) -> list[str]:
    """Return one row an engine; a figure is the median over devices of the median over seeds."""
    counts = CHECKPOINTS[benchmark]
    names = list(dict.fromkeys(engine for engines in problems.values() for engine in engines))
    lines = [
        f"| engine | {' | '.join(map(str, counts))} | evaluations to {TARGET:.0%} | 100, tight corner "
        f"| {counts[-1]}, tight corner | devices x seeds | CPU ms per evaluation | peak memory MB |",
        f"| --- |{' --- |' * (len(counts) + 6)}",
    ]
    for engine in names:
        devices = [engines[engine] for engines in problems.values() if engines.get(engine)]
        if not devices:
            continue
        every = [run for runs in devices for run in runs]
        last = [by[max(by, key=int)] for run in every if (by := run["cpu_ms_per_evaluation"])]
        cells = [
            *(spread(_by_device(devices, lambda run, n=n: run["shares"].get(str(n)))) for n in counts),
            _to_target(devices, counts[-1]),
            spread(_by_device(devices, lambda run: run["shares_tight"].get("100"))),
            spread(_by_device(devices, lambda run: run["shares_tight"].get(str(counts[-1])))),
            f"{len(devices)} x {max(map(len, devices))}{_stopped(every)}",
            _number(last),
            _memory(every),
        ]
        lines.append(f"| {engine} | {' | '.join(cells)} |")
    return lines


def _by_device(devices: Sequence[Runs], figure: Callable[[dict[str, Any]], float | None]) -> list[float]:
    found = [[value for run in runs if (value := figure(run)) is not None] for runs in devices]
    return [median(values) for values in found if values]


def _to_target(devices: Sequence[Runs], limit: int) -> str:
    """Return the median over devices; a device whose median seed did not get there counts as more than the limit."""
    found = [median(run["evaluations_to_target"] or limit + 1 for run in runs) for runs in devices]
    reached = sum(value <= limit for value in found)
    middle = median(found)
    return f"{f'{middle:.0f}' if middle <= limit else f'> {limit}'} ({reached} of {len(found)} devices)"


def _seeds(runs: Runs) -> str:
    return f"{len(runs)}{_stopped(runs)}"


def _stopped(runs: Runs) -> str:
    short = [run["paid"] for run in runs if not run["complete"]]
    return f", stopped at {', '.join(map(str, short))}" if short else ""


def _number(values: Sequence[float]) -> str:
    return f"{median(values):.1f}" if values else "-"


def _memory(runs: Runs) -> str:
    found = [run["peak_memory_mb"] for run in runs if run["peak_memory_mb"]]
    return f"{max(found):.0f}" if found else "-"
