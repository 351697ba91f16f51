"""``nas verify``: does what the run directory says still hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from nas.core.artefacts import ExportedModel, StructureCheck
from nas.core.errors import InputError
from nas.core.files import read_json, sha256_path
from nas.core.schema import check_schema, from_data
from nas.pipeline.choice import chosen
from nas.pipeline.stages import stale_inputs
from nas.runs.front import read_front

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.core.scenario import Scenario
    from nas.export.lowering import Lowering
    from nas.pipeline.context import Context


def verify_run(context: Context, *, progress: Progress | None = None) -> list[StructureCheck]:
    """Return every check of a run that can be made from its files.

    Packages are computed again, and compared with torch's outputs as the export recorded them, or with those of the
    network where it recorded none.

    A stage that is running must have a process that holds the run's lock; one that was killed leaves it ``running``.

    Raises:
        InputError: A file of a finished stage is missing, changed or stale, or is not what it should be.
    """
    states = context.directory.states()
    finished = [name for name, state in states.items() if state.state == "done"]
    context.directory.require(*finished)
    stale = {name: stale_inputs(context.config, context.directory, name) for name in finished}
    changed = [
        f"stage {name!r} is stale: {', '.join(inputs)} changed since it ran" for name, inputs in stale.items() if inputs
    ]
    if changed:
        raise InputError(
            f"{context.directory.path}: {'; '.join(changed)}",
            hint=f"restore what changed, or do everything again: nas run {context.directory.path} --force",
        )
    checks = [_check(f"{name} is whole and fresh", "nothing changed", "nothing changed") for name in finished]
    checks += _running_checks(context, [name for name, state in states.items() if state.state == "running"])
    checks += _export_checks(context, progress)
    checks += _coverage_checks(context)
    return checks


def _running_checks(context: Context, names: Sequence[str]) -> list[StructureCheck]:
    found = (
        "is at work" if names and context.directory.lock().is_held() else "is gone; `nas run` goes on with the stage"
    )
    return [
        StructureCheck(
            name=f"the process of running stage {name}",
            expected="is at work",
            found=found,
            passed=found == "is at work",
        )
        for name in names
    ]


def _export_checks(context: Context, progress: Progress | None) -> list[StructureCheck]:
    checks = []
    for file in sorted(context.path("export").glob("*/export.json")):
        body = check_schema(read_json(file), "export", 1, where=str(file))
        for name, stored in zip(body["packages"], body["sha256"], strict=True):
            label = f"{file.parent.name}: digest of {name}"
            checks.append(_check(label, stored, sha256_path(file.parent / name)))
        computed = _parity_checks(context, body, file, progress) if body.get("parity") is not None else []
        again = {check.name for check in computed}
        recorded = [
            StructureCheck(
                name=f"{file.parent.name}: {item['name']}",
                expected=item["expected"],
                found=item["found"],
                passed=item["passed"],
            )
            for item in body["checks"]
        ]
        checks += [*(check for check in recorded if check.name not in again), *computed]
    return checks


def _parity_checks(
    context: Context, body: dict[str, Any], file: Path, progress: Progress | None
) -> list[StructureCheck]:
    """Compute the package again; torch is imported only where that is asked for."""
    from nas.export.component import denoiser_component
    from nas.export.mil.program import read_program
    from nas.export.parity import AS_STORED, Passes, compare_with_reference, compute_parity, parity_checks
    from nas.export.trace import exportable
    from nas.export.verification import read_reference, reference_path, require_same_packages
    from nas.pipeline.export import source_network

    model = from_data(ExportedModel, body, where=str(file))
    digest, paths = file.parent.name, [file.parent / name for name in model.packages]
    quick = not any(row.reference == AS_STORED for row in model.parity.rows) if model.parity else False
    recorded = reference_path(paths[0])
    least: dict[str, float | None] = {}
    if recorded.is_file():
        reference = read_reference(recorded)
        require_same_packages(reference, paths, where=recorded)
        passes = Passes(progress, 1 if quick else 2)
        report = compare_with_reference([read_program(path) for path in paths], reference, quick=quick, passes=passes)
        least = {"min_psnr_db": reference.min_psnr_db}
    else:
        denoiser = exportable(source_network(context, digest, model.architecture)[0])
        component = denoiser_component(
            denoiser, _scenario_of(context, digest), lowering=cast("Lowering", model.lowering)
        )
        report = compute_parity(paths, component, quick=quick, progress=progress)
    return [replace(check, name=f"{digest}: {check.name}") for check in parity_checks(report, **least)]


def _scenario_of(context: Context, digest: str) -> Scenario:
    """Return the scenario of an exported member of the front: its own where scenarios were searched."""
    if context.joint is None:
        return context.scenario
    front = read_front(context.path("search", "front.json"))
    own = [chosen(context, member) for member in front.members if member.architecture.digest == digest]
    return own[0].context.scenario if own else context.scenario


def _coverage_checks(context: Context) -> list[StructureCheck]:
    file = context.path("closed_loop", "closed_loop.json")
    if not file.is_file():
        return []
    body = check_schema(read_json(file), "closed_loop", 1, where=str(file))
    inside = sum(row["low_ms"] <= row["measured_ms"] <= row["high_ms"] for row in body["rows"])
    least = least_covered(len(body["rows"]), body["stated_coverage"])
    text = f"{inside} of {len(body['rows'])} inside"
    return [
        StructureCheck(
            name="measured latency of the front lies in its intervals",
            expected=f"at least {least} of {len(body['rows'])}",
            found=text,
            passed=inside >= least,
        )
    ]


def least_covered(count: int, coverage: float) -> int:
    """Return the smallest number inside that intervals of ``coverage`` show by chance in 95 % of cases.

    Source:
        The 5 % quantile of the binomial distribution with ``count`` trials.
    """
    from scipy.stats import binom

    return int(binom.ppf(0.05, count, coverage))


def _check(name: str, expected: str, found: str) -> StructureCheck:
    return StructureCheck(name=name, expected=expected, found=found, passed=expected == found)
