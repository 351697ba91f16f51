"""What ``nas show``, ``nas list`` and ``nas doctor`` print, as data and as text."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas.core.broken_limits import broken_limits
from nas.core.errors import ConfigError, InputError, NasError
from nas.core.scenario import scenario_point
from nas.core.schema import to_data
from nas.pipeline.costs import additive_costs, load_prices
from nas.pipeline.explain import explain, explanation_data, explanation_text
from nas.pipeline.show_limits import chance_cells as _chance_cells
from nas.pipeline.show_limits import chance_head as _chance_head
from nas.pipeline.show_limits import cost_lines, device_lines, level_lines, limit_lines
from nas.runs.explanation import read_explanation
from nas.runs.front import FrontFile, read_front
from nas.runs.journal import Journal
from nas.search.prices import cost_differences

if TYPE_CHECKING:
    from nas.core.cost import CostEstimate, Interval
    from nas.core.evaluation import Evaluation
    from nas.core.explanation import Explanation
    from nas.pipeline.context import Context

_log = logging.getLogger(__name__)


def describe(context: Context, thing: str, digest: str | None) -> tuple[dict[str, Any], str]:
    """Return the front, one member of it, or the stages' states of a run, as data and as text.

    Raises:
        InputError: The run has no front yet.
        ConfigError: No member of the front has the digest.
    """
    if thing == "status":
        states = context.directory.states()
        rows = [f"{name:<12}{state.state:<12}{state.seconds or 0:>8.1f} s" for name, state in states.items()]
        return {"stages": to_data(states)}, "\n".join(rows)
    front = read_front(context.path("search", "front.json"))
    if thing == "explain":
        explanation = _explanation(context, front)
        return explanation_data(explanation), explanation_text(explanation)
    if thing == "front":
        width = f"{front.budget.coverage:.0%} interval"
        head = (
            f"{'network':<18}{'latency ms':>12}{width:>22}{'after selection':>22}{'peak MB':>10}{'parameters':>14}"
            f"{'quality':>10}{_chance_head(front)}"
        )
        joint = any(scenario_point(member.architecture).text for member in front.members)
        head += "  scenario" if joint else ""
        rows = [_front_row(member, front) for member in front.members]
        return to_data(front), "\n".join(
            [head, *rows, *device_lines(front), *limit_lines(front), *level_lines(front), *_screened_lines(context)]
        )
    wanted = digest or front.selected
    for member in front.members:
        if member.architecture.digest == wanted:
            return to_data(member), _architecture_text(member)
    # Of a candidate that several levels judged, the highest level's quality.
    for evaluation in sorted(_journal(context), key=lambda evaluation: not evaluation.at_highest_level):
        if evaluation.architecture.digest == wanted:
            whole = _with_split(evaluation, context)
            return to_data(whole), _architecture_text(whole)
    raise ConfigError(f"no candidate of the search has the digest {wanted!r}", hint="`nas show RUN front` lists them")


def _explanation(context: Context, front: FrontFile) -> Explanation:
    """Return what drove the search: as its stage wrote it, or anew for runs of versions that did not."""
    path = context.path("search", "explain.json")
    if path.exists():
        return read_explanation(path)
    costs = additive_costs(load_prices(context), front.budget)
    explanation = explain(context, costs, _journal(context), front)
    if explanation is None:
        raise InputError(
            f"{path.parent}: fewer than two candidates were judged, which explains nothing",
            hint="search with more evaluations, `nas search FILE --set search.evaluations=N`, or allow more in budget",
        )
    return explanation


def _journal(context: Context) -> list[Evaluation]:
    path = context.path("search", "evaluations.jsonl")
    return Journal(path).read() if path.exists() else []


def _with_split(evaluation: Evaluation, context: Context) -> Evaluation:
    """Return a candidate with the split of its cost, as far as the run can still price it; journals keep none."""
    from nas.pipeline.choice import chosen
    from nas.pipeline.costs import load_prices

    one = chosen(context, evaluation)
    try:
        again = load_prices(replace(one.context, joint=None)).estimate(one.architecture)
    except NasError as error:
        _log.warning("the cost of %s is shown without its blocks: %s", evaluation.architecture.digest, error)
        return evaluation
    if cost_differences(evaluation.cost, again):
        _log.warning(
            "the run was calibrated again: the cost of %s is shown without blocks", evaluation.architecture.digest
        )
        return evaluation
    return replace(evaluation, cost=evaluation.cost.with_split_of(again))


def _screened_lines(context: Context) -> list[str]:
    """Return how many candidates broke which limit unpaid, with the reason where blocks do not run."""
    rows = [f"  {count:>6}  {text}" for text, count in broken_limits(_journal(context))]
    return ["screened out unpaid, by limit:", *rows] if rows else []


def _front_row(member: Evaluation, front: FrontFile) -> str:
    """Return one line; intervals before and after allowing for the selection, and why it is no safe prediction."""
    cost, digest = member.cost, member.architecture.digest
    interval = f"{cost.latency_interval_ms.low:.1f} to {cost.latency_interval_ms.high:.1f}"
    after = front.selection_effect.interval(digest) if front.selection_effect else None
    allowed = f"{after.low:.1f} to {after.high:.1f}" if after else "-"
    outside = "" if cost.in_domain else f"  outside the calibration: {cost.domain_note or 'extrapolated'}"
    score = f"{member.quality.score:.4f}" if member.quality else "-"
    mark = "*" if digest == front.selected else " "
    scenario = scenario_point(member.architecture).text
    outside = (f"  {scenario}" if scenario else "") + outside
    return (
        f"{digest}{mark} {cost.latency_ms:>12.1f}{interval:>22}{allowed:>22}{cost.peak_memory_mb:>10.1f}"
        f"{cost.parameters:>14,}{score:>10}{_chance_cells(digest, front)}{outside}"
    )


def _architecture_text(member: Evaluation) -> str:
    cost = member.cost
    choices = [f"  {name}: {value}" for name, value in member.architecture.items()]
    blocks = [
        f"  {block.block:<28}{block.latency_ms:>10.2f} ms{block.memory_mb:>10.2f} MB" for block in member.cost.blocks
    ]
    head = f"{member.architecture.digest} of {member.architecture.space}, {member.cost.parameters:,} parameters"
    origin = f"costs are {member.cost.origin} for {member.cost.device}"
    broken = [
        f"  {violation.limit}: {violation.reason or f'{violation.value:.6g} against {violation.allowed:.6g} allowed'}"
        for violation in member.violations
    ]
    stuck = [f"  {fault.block} on {fault.compute_unit}: {fault.reason} ({fault.source})" for fault in cost.infeasible]
    lines = [head, *cost_lines(cost), "choices:", *choices]
    lines += ["screened out, as it breaks:", *broken] if broken else []
    lines += ["does not run on the device:", *stuck] if stuck else []
    lines += ["one generation:", *_phase_rows(cost)] if cost.phases else []
    return "\n".join([*lines, f"blocks, all calls of one generation ({origin}):", *blocks] if blocks else lines)


def _phase_rows(cost: CostEstimate) -> list[str]:
    """Return a line a phase and one for the whole, with intervals and where each figure is from."""
    rows = [
        _phase_row(
            f"{part.calls} x {part.phase}", part.latency_ms, part.latency_interval_ms, part.peak_memory_mb,
            f"{part.origin}: {part.source}",
        )
        for part in cost.phases
    ]  # fmt: skip
    return [*rows, _phase_row("all", cost.latency_ms, cost.latency_interval_ms, cost.peak_memory_mb, cost.scenario)]


def _phase_row(name: str, latency_ms: float, range_: Interval, memory_mb: float | None, source: str) -> str:
    ends = f"{range_.low:.2f} to {range_.high:.2f}"
    memory = "unknown" if memory_mb is None else f"{memory_mb:.2f} MB"
    return f"  {name:<18}{latency_ms:>10.2f} ms{ends:>24}{memory:>14}  {source}"


def listing(kind: str) -> list[dict[str, Any]]:
    """Return what can be named: spaces, devices, engines, qualities, lowerings, and formats of imports."""
    if kind == "formats":
        from latency_models.importers import FORMATS

        return [{"name": name, "text": text} for name, (_, text) in FORMATS.items()]
    if kind == "lowerings":
        from latency_models.lowering import LOWERINGS, PACKAGE_LOWERINGS

        return [{"name": name, "text": LOWERINGS[name].text} for name in PACKAGE_LOWERINGS]
    if kind == "spaces":
        import search_spaces

        return [_space_row(search_spaces.get(name)) for name in search_spaces.names()]
    if kind == "devices":
        import latency_models

        hosts = [
            {"name": "host-cpu", "text": "this machine's processor, measured"},
            {"name": "host-cuda", "text": "this machine's CUDA GPU, measured"},
        ]
        phones = [name for name in latency_models.device_names() if not name.startswith("host")]
        return hosts + [{"name": name, "text": latency_models.device(name).label} for name in phones]
    if kind == "engines":
        from nas.search import engines

        return [{"name": name, "text": _first_line(engines.get(name))} for name in engines.names()]
    from nas.pipeline.quality import ESTIMATORS

    return [{"name": name, "text": text} for name, text in sorted(ESTIMATORS.items())]


def _space_row(space: Any) -> dict[str, Any]:
    count = space.count()
    text = f"{count:,} distinct architectures, {len(space.slots())} temporal slots, backbone {space.backbone.name}"
    return {"name": space.identifier, "text": text, "count": count, "slots": len(space.slots())}


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def examine_machine() -> list[dict[str, Any]]:
    """Return what this machine can do, one row a capability, with the reason where it cannot."""
    import platform
    from importlib.util import find_spec

    import psutil
    import torch

    memory_gb = psutil.virtual_memory().total / 1e9
    mac = platform.system() == "Darwin"
    coreml = find_spec("coremltools") is not None
    cuda = torch.cuda.is_available()
    return [
        _row(
            "profile and train on the CPU",
            True,
            f"{psutil.cpu_count()} cores, {memory_gb:.0f} GB, torch {torch.__version__}",
        ),
        _row("profile and train on CUDA", cuda, torch.cuda.get_device_name(0) if cuda else "torch sees no CUDA device"),
        _row("export to Core ML", coreml, "coremltools is installed" if coreml else "pip install coremltools"),
        _row("build and export the 0.6 B network", memory_gb >= 12, "needs about 12 GB of memory"),
        _row("run Core ML packages", mac, "macOS" if mac else "Core ML runs on macOS and iOS only"),
        *_core_ml_rows(),
        _row("read and write video files", find_spec("av") is not None, _package("av", "pip install av")),
        _row(
            "encode captions with a CLIP text model",
            find_spec("transformers") is not None,
            _package("transformers", "pip install 'mobile-video-nas[text]'"),
        ),
        _row(
            "check exports with Core AI",
            find_spec("coreai_torch") is not None,
            _package("coreai_torch", "pip install 'mobile-video-nas[coreai]'"),
        ),
        _row("score videos with VBench", find_spec("vbench") is not None, _package("vbench", "pip install vbench")),
        _row("search on a Ray cluster", find_spec("ray") is not None, "ray is installed; give search.executor.address"),
    ]


def _core_ml_rows() -> list[dict[str, Any]]:
    from latency_models.backends import coreml_device, coreml_host

    found = [
        ("measure packages on this Mac (profile.backend coreml_host)", coreml_host.availability()),
        ("measure packages on an attached phone (profile.backend coreml_device)", coreml_device.availability()),
    ]
    return [_row(name, state.available, state.reason or "what it needs is here") for name, state in found]


def _package(name: str, how: str) -> str:
    from importlib.util import find_spec

    return f"{name} is installed" if find_spec(name) is not None else how


def _row(name: str, available: bool, text: str) -> dict[str, Any]:
    return {"name": name, "available": available, "text": text}
