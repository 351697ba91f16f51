"""``nas profile --kit``: the packages that the calibration wants measured, the runner, and the manifest of both."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from statistics import median_low
from typing import TYPE_CHECKING, Any, Literal

from latency_models import call_label
from latency_models.importers.device_record_schema import Configuration, Input, Model
from latency_models.importers.kits import (
    MANIFEST,
    RECORD_SCHEMA,
    KitJob,
    KitManifest,
    Measuring,
    num_anchors,
    read_manifest,
    record_schema_text,
    with_anchors,
)
from nas.core.architecture import Architecture
from nas.core.errors import ConfigError, InputError
from nas.core.files import JsonLines, canonical_json, sha256_path, sha256_text, write_json, write_text_atomically
from nas.core.rng import RandomStreams
from nas.core.scenario import ComputeUnits
from nas.core.schema import from_data, to_data, with_schema
from nas.core.workload import BlockSpec
from nas.pipeline.expected import ExpectedCall, expected_calls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.core.profile import Lowering
    from nas.core.protocols import Progress
    from nas.export.component import Component
    from nas.export.kit.packages import WrittenPackage
    from nas.pipeline.context import Context

KitLowering = Literal["neural_engine", "gpu"]  # as nas.export.lowering has them; that package loads torch
PLAN, DONE, WORK = ".plan.json", ".packages.jsonl", ".work"
_INPUT_SEED = 1
_SETTINGS: dict[ComputeUnits, str] = {
    "all": "all",
    "cpu_only": "cpuOnly",
    "cpu_and_gpu": "cpuAndGPU",
    "cpu_and_ne": "cpuAndNeuralEngine",
}
# Attention as the records name it, by the form that a package's network has.
_ATTENTION: dict[KitLowering, Lowering] = {"neural_engine": "einsum", "gpu": "sdpa"}
# A float16 package of 643.9 M parameters took 124 s to write on two cores of a server; tiny ones take a second or two.
_SECONDS_A_PACKAGE, _SECONDS_A_MILLION = 2.0, 0.2
_GRAPH_MB = 0.05  # of a package beside its weights


@dataclass(frozen=True, slots=True, kw_only=True)
class KitPlan:
    """What a kit will hold: the entries of a job list, and the Core ML settings that each is measured with."""

    entries: tuple[dict[str, Any], ...]
    units: tuple[ComputeUnits, ...]
    expected: dict[str, ExpectedCall]
    measuring: Measuring = field(default_factory=Measuring)

    @property
    def lowerings(self) -> tuple[KitLowering, ...]:
        """Forms of every network that the settings want, each a package of its own."""
        return tuple(dict.fromkeys(lowering_of(units) for units in self.units))

    @property
    def package_mb(self) -> float:
        """Size of all packages."""
        return len(self.lowerings) * sum(2e-6 * self._call(entry).parameters + _GRAPH_MB for entry in self.entries)

    @property
    def write_minutes(self) -> float:
        """About how long writing the packages takes on a server's two cores."""
        millions = 1e-6 * sum(self._call(entry).parameters for entry in self.entries)
        seconds = _SECONDS_A_PACKAGE * len(self.entries) + _SECONDS_A_MILLION * millions
        return len(self.lowerings) * seconds / 60.0

    @property
    def measure_minutes(self) -> float:
        """Calls and rests on the phone by the device's prior; compiling and loading come on top."""
        calls = [self.measuring.call_seconds(self._call(entry).call_ms) for entry in self.entries for _ in self.units]
        anchors = num_anchors(len(calls))
        seconds = sum(calls) + anchors * self.measuring.min_seconds + self.measuring.first_rest_seconds
        return (seconds + self.measuring.rest_seconds * (len(calls) + anchors)) / 60.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of ``--dry-run``."""
        kinds = Counter(entry["kind"] for entry in self.entries)
        return {
            "packages": len(self.entries) * len(self.lowerings),
            "blocks": kinds["block"],
            "networks": kinds["unet"],
            "compute_units": list(self.units),
            "lowerings": list(self.lowerings),
            "package_mb": round(self.package_mb, 1),
            "write_minutes": round(self.write_minutes, 1),
            "measure_minutes": round(self.measure_minutes, 1),
        }

    def text(self) -> str:
        """Return them for people."""
        data = self.to_dict()
        return (
            f"{data['packages']} packages ({data['blocks']} blocks, {data['networks']} networks, for "
            f"{' and '.join(self.lowerings)}), about "
            f"{data['package_mb']:,.0f} MB and {data['write_minutes']:.0f} min to write; measuring with "
            f"{', '.join(self.units)}: about {data['measure_minutes']:.0f} min of calls and rests"
        )

    def _call(self, entry: dict[str, Any]) -> ExpectedCall:
        return self.expected[subject_of(entry)]


def lowering_of(units: ComputeUnits) -> KitLowering:
    """Return the form of a network for a Core ML setting: that of the Neural Engine where only it and the CPU run."""
    return "neural_engine" if units == "cpu_and_ne" else "gpu"


def subject_of(entry: dict[str, Any]) -> str:
    """Return the signature or digest that an entry of a job list is of."""
    block = entry.get("block_path")
    return block if block else Architecture.from_text(entry["arch_id"]).digest


def plan_kit(context: Context, entries: Sequence[dict[str, Any]], units: Sequence[ComputeUnits] = ()) -> KitPlan:
    """Return what a kit of a job list will hold; entries of one block or network are one.

    Args:
        context: The run.
        entries: See ``nas.pipeline.job_list``.
        units: Core ML settings to measure with; the scenario's where none is given.

    Raises:
        ConfigError: There is nothing to measure.
    """
    if not entries:
        raise ConfigError("a kit of no job: give --plan N with N above 0, or a YAML whose section 'profile' has some")
    distinct = {subject_of(entry): entry for entry in reversed(entries)}
    kept = tuple(entry for entry in entries if distinct[subject_of(entry)] is entry)
    networks = [Architecture.from_text(entry["arch_id"]) for entry in kept if entry["kind"] == "unet"]
    return KitPlan(
        entries=kept,
        units=tuple(dict.fromkeys(units)) or (context.scenario.compute_units,),
        expected=expected_calls(context.config, context.space, context.scenario, networks),
    )


def write_kit(context: Context, folder: Path, plan: KitPlan, progress: Progress) -> KitManifest:
    """Write a kit, or go on where an earlier call was stopped, and note it in the run; whole packages are kept.

    Raises:
        InputError: The folder holds something else, or the kit of another plan.
        UnavailableError: coremltools is missing, or the disk is full.
        VerificationError: A package cannot be made.
    """
    _claim(folder, _identity(context, plan))
    done = _whole_packages(folder)
    written: dict[str, WrittenPackage] = {}
    wanted = [(entry, lowering) for entry in plan.entries for lowering in plan.lowerings]
    for number, (entry, lowering) in enumerate(wanted):
        path = package_path(entry["job"], lowering)
        progress.update(number, len(wanted), path)
        written[path] = done.get(path) or _write_package(context, folder, entry, lowering)
    progress.update(len(wanted), len(wanted))
    manifest = _manifest(context, plan, written)
    _write_rest(context, folder, plan, manifest)
    write_json(context.path("kits", f"{manifest.kit}.json"), manifest.to_dict())
    return manifest


def _write_rest(context: Context, folder: Path, plan: KitPlan, manifest: KitManifest) -> None:
    """Write everything but the packages, the manifest last: a folder with one is whole."""
    from nas.export.kit.runner import write_readme, write_runner

    write_runner(folder)
    write_text_atomically(folder / RECORD_SCHEMA, record_schema_text())
    write_readme(
        folder,
        kit=manifest.kit,
        device=context.config.device.name,
        jobs=len(manifest.jobs),
        measure_minutes=plan.measure_minutes,
    )
    shutil.rmtree(folder / WORK, ignore_errors=True)
    if not (folder / MANIFEST).is_file() or read_manifest(folder / MANIFEST) != manifest:
        write_json(folder / MANIFEST, manifest.to_dict())


def _identity(context: Context, plan: KitPlan) -> dict[str, Any]:
    body = {
        "space": context.space.identifier,
        "device": context.config.device.name,
        "conditions": to_data(context.scenario),
        "units": list(plan.units),
        "entries": list(plan.entries),
        "toolchain": _toolchain(),
    }
    return {"plan": sha256_text(canonical_json(body)), "space": body["space"], "device": body["device"]}


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Make the folder this plan's."""
    from nas.core.files import read_json

    mark = folder / PLAN
    if mark.is_file():
        found = read_json(mark)
        if found != with_schema("kit_plan", 1, identity):
            raise InputError(
                f"{folder}: holds a kit of other jobs, settings or tools ({found.get('space')}, {found.get('device')})",
                hint="give another folder, or remove this one",
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty and holds no kit", hint="give an empty or a new folder")
    write_json(mark, with_schema("kit_plan", 1, identity))


def _whole_packages(folder: Path) -> dict[str, WrittenPackage]:
    """Return what earlier calls finished and is still as it was written, by path."""
    from nas.export.kit.packages import WrittenPackage

    found = {}
    for line in JsonLines(folder / DONE).read():
        one = from_data(WrittenPackage, line["written"], where=str(folder / DONE))
        path = folder / line["package"]
        if path.is_dir() and sha256_path(path) == one.sha256:
            found[line["package"]] = one
    return found


def package_path(job: str, lowering: KitLowering) -> str:
    """Return where in a kit the package of a job is."""
    return f"packages/{job}-{lowering}.mlpackage"


def _write_package(context: Context, folder: Path, entry: dict[str, Any], lowering: KitLowering) -> WrittenPackage:
    from nas.export.kit.packages import write_package

    path = package_path(entry["job"], lowering)
    one = write_package(_component(context, entry, lowering), folder / path, folder / WORK)
    JsonLines(folder / DONE).append({"package": path, "written": to_data(one)})
    return one


def _component(context: Context, entry: dict[str, Any], lowering: KitLowering) -> Component:
    from nas.export.kit.packages import block_component, network_component

    if entry["kind"] == "block":
        return block_component(BlockSpec.parse(entry["block_path"]), lowering=lowering)
    architecture = Architecture.from_text(entry["arch_id"])
    return network_component(context.space, architecture, context.scenario, lowering=lowering)


def _manifest(context: Context, plan: KitPlan, written: dict[str, WrittenPackage]) -> KitManifest:
    """Return the manifest; jobs are in random order, so that slow drifts fall on all kinds alike."""
    jobs = [
        _job(context, entry, written, units, several=len(plan.units) > 1)
        for entry in plan.entries
        for units in plan.units
    ]
    RandomStreams(context.config.run.seed).python("kit-order").shuffle(jobs)
    return KitManifest(
        space=context.space.identifier,
        device=context.config.device.name,
        scenario=call_label(context.scenario),
        conditions=context.scenario,
        measuring=plan.measuring,
        jobs=with_anchors(jobs, _anchor(plan, jobs)),
    ).named()


def _anchor(plan: KitPlan, jobs: Sequence[KitJob]) -> KitJob:
    """Return a job whose call is of middle length, of the blocks where there are some."""
    blocks = [job for job in jobs if job.model.kind == "block"] or list(jobs)
    times = {job.job: plan.expected[_subject(job)].call_ms for job in blocks}
    middle = median_low(sorted(times.values()))
    return next(job for job in blocks if times[job.job] == middle)


def _subject(job: KitJob) -> str:
    return subject_of({"block_path": job.model.block_path, "arch_id": job.model.arch_id})


def _job(
    context: Context, entry: dict[str, Any], written: dict[str, WrittenPackage], units: ComputeUnits, *, several: bool
) -> KitJob:
    path = package_path(entry["job"], lowering_of(units))
    package = written[path]
    return KitJob(
        job=f"{entry['job']}-{units}" if several else entry["job"],
        package=path,
        scenario=call_label(replace(context.scenario, compute_units=units)),
        seed=_INPUT_SEED,
        model=Model(
            kind=entry["kind"],
            arch_id=entry.get("arch_id", ""),
            block_path=entry.get("block_path", ""),
            file=path.rpartition("/")[2],
            sha256=package.sha256,
            spec_version=package.specification,
            toolchain=_toolchain(),
            inputs=tuple(Input(name=name, shape=shape, dtype=dtype) for name, shape, dtype in package.inputs),
            params=package.parameters,
            weight_bits=16.0,
            activation_dtype="float16",
        ),
        config=Configuration(requested_units=_SETTINGS[units], lowering=_ATTENTION[lowering_of(units)]),
    )


def _toolchain() -> str:
    return ", ".join(f"{name} {_version(name)}" for name in ("coremltools", "torch"))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
