"""Read what a run directory holds; absent files are gaps, damaged files are named faults, neither stops a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nas.core.artefacts import ExportedModel
from nas.core.errors import InputError
from nas.core.evaluation import Evaluation
from nas.core.explanation import Explanation
from nas.core.files import JsonLines, read_json
from nas.core.profile import ProfileRecord
from nas.core.schema import check_schema, from_data
from nas.report.audit import Audit
from nas.runs.directory import STAGES, RunDirectory
from nas.runs.explanation import read_explanation
from nas.runs.front import FrontFile, read_front
from nas.runs.journal import Journal

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFault:
    """A file of the run that is there but cannot be used."""

    stage: str
    file: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """How far a stage is; ``stale_inputs`` names inputs that changed or vanished after it ran."""

    name: str
    state: str
    started_at: str | None = None
    finished_at: str | None = None
    seconds: float | None = None
    error: str | None = None
    stale_inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One judged sampler of ``train/<digest>/evaluation.json``; stage ``real`` is the held-out clips themselves."""

    name: str
    stage: str
    metrics: Mapping[str, float | None]
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    calls: int | None = None
    num_clips: int | None = None
    clip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """Everything under ``train/<digest>``; ``folder`` is relative to the run directory.

    Training during the search (a supernet) is one too: folder ``search``, no digest, no rows.
    """

    digest: str
    folder: str
    metrics: tuple[Mapping[str, Any], ...]
    rows: tuple[TrainingRow, ...]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedRun:
    """``export/<digest>/export.json`` and ``audit.json``, and where they lie, relative to the run directory."""

    digest: str
    folder: str
    model: ExportedModel
    audit: Audit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoopRow:
    """One front member measured after the search, beside what was predicted for it before.

    ``measured_ms`` may be scaled to the machine's speed during calibration; ``raw_ms`` is what the clock said. The
    corrected ends allow for the member's having been selected.
    """

    digest: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    raw_ms: float | None = None
    predicted_memory_mb: float | None = None
    memory_low_mb: float | None = None
    memory_high_mb: float | None = None
    measured_memory_mb: float | None = None
    corrected_low_ms: float | None = None
    corrected_high_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """``closed_loop/closed_loop.json``.

    ``slowdown_ratio`` is how much slower the machine was than during calibration, by a network timed both times.
    """

    device: str
    rows: tuple[ClosedLoopRow, ...]
    median_error_ratio: float | None = None
    coverage: float | None = None
    stated_coverage: float | None = None
    slowdown_ratio: float | None = None
    corrected_coverage: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """All a report is made of; ``None`` or an empty tuple where a stage has not written."""

    run_dir: Path
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    stages: tuple[StageState, ...]
    records: tuple[ProfileRecord, ...]
    calibration: Mapping[str, Any] | None
    evaluations: tuple[Evaluation, ...]
    front: FrontFile | None
    explanation: Explanation | None
    trained: tuple[TrainedRun, ...]
    exported: tuple[ExportedRun, ...]
    closed_loop: ClosedLoop | None
    faults: tuple[FileFault, ...]

    @property
    def selected(self) -> Evaluation | None:
        """The chosen member of the front."""
        if self.front is None:
            return None
        return next((item for item in self.front.members if item.architecture.digest == self.front.selected), None)

    def stage(self, name: str) -> StageState:
        """State of one stage; ``pending`` where nothing was written."""
        return next((item for item in self.stages if item.name == name), StageState(name=name, state="pending"))


def read_run(run_dir: Path) -> RunFiles:
    """Read every file of a run that a report uses.

    Raises:
        InputError: ``run_dir`` is not a folder.
    """
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}: is not a run directory", hint="give the folder that holds run.yaml")
    faults: list[FileFault] = []
    reader = _Reader(run_dir, faults)
    return RunFiles(
        run_dir=run_dir,
        config=_first(reader.yaml("resolved.yaml"), reader.yaml("run.yaml")),
        manifest=reader.json("manifest.json", "run") or {},
        stages=reader.stages(),
        records=reader.lines("profile/records.jsonl", "profile", ProfileRecord),
        calibration=reader.artefact("calibrate/report.json", "calibrate", "calibration", dict),
        evaluations=reader.evaluations(),
        front=reader.front(),
        explanation=reader.explanation(),
        trained=reader.trained(),
        exported=reader.exported(),
        closed_loop=reader.artefact("closed_loop/closed_loop.json", "closed_loop", "closed_loop", ClosedLoop),
        faults=tuple(faults),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads files below one folder and notes faults instead of raising them."""

    run_dir: Path
    faults: list[FileFault]

    def attempt(self, stage: str, name: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (InputError, yaml.YAMLError, OSError) as error:
            # Paths of this machine say nothing to the reader of a page that travels.
            message = str(error).replace(f"{self.run_dir}/", "")
            self.faults.append(FileFault(stage=stage, file=name, message=message))
            return None

    def yaml(self, name: str) -> Mapping[str, Any]:
        path = self.run_dir / name
        if not path.exists():
            return {}
        data = self.attempt("run", name, lambda: yaml.safe_load(path.read_text(encoding="utf-8")))
        return data if isinstance(data, dict) else {}

    def json(self, name: str, stage: str) -> Any:
        path = self.run_dir / name
        return self.attempt(stage, name, lambda: read_json(path)) if path.exists() else None

    def artefact(self, name: str, stage: str, schema: str, kind: type[T]) -> T | None:
        path = self.run_dir / name
        if not path.exists():
            return None
        return self.attempt(stage, name, lambda: _decode(path, name, schema, kind))

    def lines(self, name: str, stage: str, kind: type[T]) -> tuple[T, ...]:
        path = self.run_dir / name
        items = self.attempt(
            stage,
            name,
            lambda: tuple(
                from_data(kind, item, where=f"{name}: record {index}", partial=True)
                for index, item in enumerate(JsonLines(path).read(), start=1)
            ),
        )
        return items or ()

    def evaluations(self) -> tuple[Evaluation, ...]:
        name = "search/evaluations.jsonl"
        return tuple(self.attempt("search", name, Journal(self.run_dir / name).read) or ())

    def stages(self) -> tuple[StageState, ...]:
        status = self.json("status.json", "run")
        entries = status.get("stages", {}) if isinstance(status, dict) else {}
        return tuple(self._stage(name, entries.get(name)) for name in STAGES)

    def _stage(self, name: str, entry: Any) -> StageState:
        body = {key: value for key, value in entry.items() if key != "name"} if isinstance(entry, dict) else {}
        known = {key: body.get(key) for key in ("started_at", "finished_at", "seconds", "error")}
        stale = self._stale(name)
        data = {"name": name, "state": body.get("state", "pending"), "stale_inputs": stale, **known}
        state = self.attempt("run", "status.json", lambda: from_data(StageState, data, where=f"status.json: {name}"))
        return state or StageState(name=name, state="unreadable", stale_inputs=stale)

    def _stale(self, name: str) -> tuple[str, ...]:
        file = f"{name}/stage.json"
        if not (self.run_dir / file).exists():
            return ()
        return self.attempt(name, file, lambda: RunDirectory(self.run_dir).stale(name)) or ()

    def front(self) -> FrontFile | None:
        path = self.run_dir / "search/front.json"
        return self.attempt("search", "search/front.json", lambda: read_front(path)) if path.exists() else None

    def explanation(self) -> Explanation | None:
        name = "search/explain.json"
        path = self.run_dir / name
        return self.attempt("search", name, lambda: read_explanation(path)) if path.exists() else None

    def trained(self) -> tuple[TrainedRun, ...]:
        search = self.lines("search/metrics.jsonl", "search", dict)
        shared = (TrainedRun(digest="", folder="search", metrics=search, rows=()),) if search else ()
        return (*shared, *(self._trained(folder) for folder in _folders(self.run_dir / "train")))

    def _trained(self, folder: Path) -> TrainedRun:
        name = f"train/{folder.name}"
        path = folder / "evaluation.json"
        rows: tuple[TrainingRow, ...] = ()
        captions: tuple[str, ...] = ()
        if path.exists():
            file = f"{name}/evaluation.json"
            body = self.attempt("train", file, lambda: _decode(path, file, "training_evaluation", dict)) or {}
            rows = (
                self.attempt(
                    "train",
                    file,
                    lambda: from_data(tuple[TrainingRow, ...], body.get("rows", []), where=file, partial=True),
                )
                or ()
            )
            captions = tuple(str(item) for item in body.get("captions", ()))
        metrics = self.lines(f"{name}/metrics.jsonl", "train", dict)
        return TrainedRun(digest=folder.name, folder=name, metrics=metrics, rows=rows, captions=captions)

    def exported(self) -> tuple[ExportedRun, ...]:
        found = []
        for folder in _folders(self.run_dir / "export"):
            name = f"export/{folder.name}"
            model = self.artefact(f"{name}/export.json", "export", "export", ExportedModel)
            audit = self.artefact(f"{name}/audit.json", "export", "audit", Audit)
            if model is not None:
                found.append(ExportedRun(digest=folder.name, folder=name, model=model, audit=audit))
        return tuple(found)


def _decode(path: Path, name: str, schema: str, kind: type[T]) -> T:
    return from_data(kind, check_schema(read_json(path), schema, 1, where=name), where=name, partial=True)


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []


def _first(*options: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((option for option in options if option), {})
