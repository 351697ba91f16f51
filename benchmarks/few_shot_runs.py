"""Runs predictors over devices, sample counts and draws; every finished cell is a line on disk, so a rerun goes on.

A group is a set of source devices and the targets judged with them. Each group writes its own file, so that several
processes never write to one. Source models are kept beside it.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import few_shot_baselines as baselines
import numpy as np
from devbench import Space, load_space
from few_shot_published import TASKS
from few_shot_scores import accuracy, budget_choices, interval

from latency_models import transfer
from latency_models.transfer.curves import scaled_features, source_curve
from latency_models.transfer.replay import Sources
from latency_models.transfer.sources import learn
from nas.core.files import JsonLines
from nas.core.rng import RandomStreams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS_RANDOM, OURS_CHOSEN = "ours_random", "ours_chosen"
METHODS = (OURS_CHOSEN, OURS_RANDOM, *baselines.BASELINES)
LEFT_OUT = "left out"  # protocol of a group whose targets' machines are no sources
COVERAGE = 0.9
# One-sided, what a choice under a budget is bounded by. With all cells of NB201 to choose from, k = 20 and one machine
# left out: 0.7 breaks 4.9 % of budgets for 0.30 points of regret, 0.8 3.0 % for 0.44 (the median 10.4 % for 0.18).
UPPER_COVERAGE = 0.8
TIMED_AT, TIMED_PREDICTIONS, TIMED_REPEATS = 20, 10_000, 3
TIMED = (OURS_RANDOM, "gp", "gp_factors")
FEWEST_TESTED = 30
_TASK_SOURCES = 0.5  # share of a published task's sources that must be there to rebuild it


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Devices to learn from, and the devices judged with them."""

    space: str
    protocol: str
    label: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def slug(self) -> str:
        """A file name of the group."""
        digest = hashlib.sha256(repr((self.protocol, self.label)).encode()).hexdigest()[:6]
        return re.sub(r"[^a-z0-9]+", "-", f"{self.space}-{self.label}".lower())[:60] + f"-{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run; equal for every group.

    Attributes:
        folders: Where devices are read from, sources first.
        work: Where cells and source models are kept.
        tested: Networks a device is judged on, drawn once per device; None means all that were not measured.
    """

    folders: tuple[Path, ...]
    work: Path
    counts: tuple[int, ...]
    draws: int
    methods: tuple[str, ...]
    seed: int
    tested: int | None
    source_networks: int


def left_out_groups(space: Space, devices: tuple[str, ...] | None) -> list[Group]:
    """Return a group per machine, with all columns of the other machines as its sources."""
    wanted = [one for one in space.devices if devices is None or one.name in devices]
    return [
        Group(
            space=space.name,
            protocol=LEFT_OUT,
            label=machine,
            sources=tuple(one.name for one in space.devices if one.physical != machine),
            targets=tuple(one.name for one in wanted if one.physical == machine),
        )
        for machine in sorted({one.physical for one in wanted})
    ]


def held_out_groups(space: Space, test: Path, devices: tuple[str, ...] | None) -> tuple[list[Group], list[str]]:
    """Return a group per machine of the folder ``test``, all with the other folder's devices as sources.

    A machine that is in both folders is left out with a notice.
    """
    sources = [one for one in space.devices if one.folder != test]
    known = {one.physical for one in sources}
    found = [one for one in space.devices if one.folder == test and (devices is None or one.name in devices)]
    notices = [
        f"{space.name}: '{one.name}' is left out, its machine '{one.physical}' is also a source"
        for one in found
        if one.physical in known
    ]
    groups = [
        Group(
            space=space.name,
            protocol=LEFT_OUT,
            label=machine,
            sources=tuple(one.name for one in sources),
            targets=tuple(one.name for one in found if one.physical == machine),
        )
        for machine in sorted({one.physical for one in found} - known)
    ]
    return groups, notices


def task_groups(space: Space) -> tuple[list[Group], list[str]]:
    """Return the published tasks whose targets, and at least half of whose sources, are there."""
    groups, notices = [], []
    for task in TASKS:
        sources = tuple(name for name in task.sources if name in space.device_names)
        targets = tuple(name for name in task.targets if name in space.device_names)
        if task.space != space.name or not targets:
            continue
        if targets != task.targets or len(sources) < _TASK_SOURCES * len(task.sources):
            notices.append(
                f"{space.name}: task {task.name} is not rebuilt: {len(targets)} of {len(task.targets)} targets and "
                f"{len(sources)} of {len(task.sources)} sources are in the data"
            )
            continue
        missing = [name for name in task.sources if name not in sources]
        if missing:
            notices.append(f"{space.name}: task {task.name} is rebuilt without its sources {', '.join(missing)}")
        groups.append(Group(space=space.name, protocol=task.name, label=task.name, sources=sources, targets=targets))
    return groups, notices


def run_group(group: Group, plan: Plan) -> int:
    """Run every cell of a group that is not on disk yet; return how many were run."""
    space = load_space(group.space, plan.folders)
    assert space is not None  # the group came from it
    return GroupRun(group=group, plan=plan, space=space).run()


@dataclass(kw_only=True, eq=False)
class GroupRun:
    """The state of one group: networks, source models made when first needed, networks chosen before."""

    group: Group
    plan: Plan
    space: Space
    rows: np.ndarray = field(init=False)
    latency_ms: np.ndarray = field(init=False)
    _background: baselines.Background | None = field(default=None, init=False)
    _sources: transfer.SourceModels | None = field(default=None, init=False)
    _chosen: dict[tuple[object, ...], np.ndarray] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.rows = np.flatnonzero(self.space.features.usable)
        self.latency_ms = self.space.latency_ms[self.rows]

    def run(self) -> int:
        """Run what is missing."""
        file = JsonLines(self.plan.work / f"{self.group.slug}.jsonl")
        done = {_key(record) for record in file.read()}
        count = 0
        for draw in range(self.plan.draws):
            for device, k, method in self._cells():
                if _key({"device": device, "k": k, "method": method, "draw": draw}) in done:
                    continue
                file.append(self._cell(device, k, method, draw))
                count += 1
            _say(f"{self.group.space} {self.group.label}: draw {draw + 1} of {self.plan.draws}")
        return count

    def _cells(self) -> Iterator[tuple[str, int, str]]:
        for device in self.group.targets:
            measured = len(self._measured(device))
            for k in self.plan.counts:
                if measured < k + FEWEST_TESTED:
                    _say(f"{self.group.space} {device}: {measured} measured networks are too few for k={k}, skipped")
                    continue
                for method in self.plan.methods:
                    yield device, k, method

    def _measured(self, device: str) -> np.ndarray:
        return np.flatnonzero(np.isfinite(self.latency_ms[:, self.space.device_names.index(device)]))

    def _cell(self, device: str, k: int, method: str, draw: int) -> dict[str, Any]:
        latency_ms = self.latency_ms[:, self.space.device_names.index(device)]
        known = self._networks(device, k, method, draw)
        streams = RandomStreams(self.plan.seed)
        asked = streams.numpy(f"tested/{self.group.space}/{device}").permutation(self._measured(device))
        asked = np.setdiff1d(asked[: self.plan.tested], known)
        fit = self._fitter(method)
        started = time.thread_time()
        prediction = fit(known, latency_ms[known], draw)(asked)
        seconds = time.thread_time() - started
        true_ms = latency_ms[asked]
        record: dict[str, Any] = {
            "space": self.group.space,
            "protocol": self.group.protocol,
            "group": self.group.label,
            "device": device,
            "k": k,
            "method": method,
            "draw": draw,
            "tested": len(asked),
            "fit_and_predict_cpu_s": seconds,
            "in_domain_ratio": None if prediction.in_domain is None else float(prediction.in_domain.mean()),
            **accuracy(prediction.median_ms, true_ms),
            **interval(prediction, true_ms),
        }
        if self.space.accuracy is not None:
            record |= budget_choices(prediction, true_ms, self.space.accuracy[self.rows][asked])
        return record

    def _networks(self, device: str, k: int, method: str, draw: int) -> np.ndarray:
        """Networks a method measures: the same random ones for all, or those it chooses itself."""
        measured = self._measured(device)
        streams = RandomStreams(self.plan.seed)
        if not method.endswith("_chosen"):
            return streams.numpy(f"known/{self.group.space}/{device}", draw).permutation(measured)[:k]
        key = (method, k, draw, measured.tobytes())
        if key not in self._chosen:
            seed = streams.integer(f"chosen/{self.group.space}/{self.group.label}", draw)
            if method == OURS_CHOSEN:
                self._chosen[key] = transfer.choose_networks(self._models(), k, seed=seed, candidates=measured)
            else:
                rng = np.random.default_rng(seed)
                self._chosen[key] = baselines.choose_for_process(self._known_before(), measured, k, rng=rng)
        return self._chosen[key]

    def _fitter(self, method: str) -> Callable[[np.ndarray, np.ndarray, int], baselines.Predict]:
        """Return ``(networks, latency_ms, seed) -> predict``; what is learned once is learned before it is timed."""
        if method not in (OURS_RANDOM, OURS_CHOSEN):
            background, fit = self._known_before(), baselines.BASELINES[method]
            return lambda known, latency_ms, seed: fit(background, known, latency_ms, seed=seed)
        models = self._models()

        def fit_ours(known: np.ndarray, latency_ms: np.ndarray, seed: int) -> baselines.Predict:
            predictor = transfer.fit_target(models, known, latency_ms, seed=seed, coverage=COVERAGE)

            def predict(asked: np.ndarray) -> baselines.Prediction:
                said = predictor.predict(asked)
                return baselines.Prediction(
                    median_ms=said.median_ms,
                    low_ms=said.low_ms,
                    high_ms=said.high_ms,
                    upper_ms=said.upper_ms(UPPER_COVERAGE),
                    in_domain=said.in_domain,
                )

            return predict

        return fit_ours

    def _models(self) -> transfer.SourceModels:
        """Our source models, fitted once for a set of sources."""
        if self._sources is None:
            digest = hashlib.sha256(repr(self.group.sources).encode()).hexdigest()[:12]
            path = self.plan.work / f"sources-{self.group.space}-{digest}.npz"
            if path.is_file():
                self._sources = transfer.SourceModels.load(path)
                return self._sources
            _say(f"{self.group.space} {self.group.label}: fitting source models")
            columns = [self.space.device_names.index(name) for name in self.group.sources]
            own = scaled_features(self.space.features.matrix[self.rows])
            curves = [self._our_curve(column, own) for column in columns]
            sources = Sources(
                devices=self.group.sources,
                groups=self._machines(columns),
                curves=np.column_stack([log_ms for log_ms, _, _ in curves]),
                rows=tuple(rows for _, rows, _ in curves),
                logs=np.log(self.latency_ms[:, columns]),
                own=own,
                work=self.space.features.work[self.rows],
            )
            started = time.thread_time()
            self._sources = learn(sources, seed=self.plan.seed)
            seconds = time.thread_time() - started + sum(taken for _, _, taken in curves)
            JsonLines(self.plan.work / f"once-{self.group.slug}.jsonl").append(
                {"space": self.group.space, "source_models_cpu_s": seconds, "sources": len(columns)}
            )
            temporary = path.with_name(f"{self.group.slug}.partial")
            self._sources.save(temporary)
            temporary.replace(path)
        return self._sources

    def _machines(self, columns: list[int]) -> tuple[str, ...]:
        """Machines of the sources; settings of a single machine stand in for machines, as ``fit_sources`` has it."""
        machines = tuple(self.space.devices[column].physical for column in columns)
        return machines if len(set(machines)) > 1 else self.group.sources

    def _our_curve(self, column: int, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Log latency of every network on one source, the rows it was fitted on, and the CPU seconds it took.

        It depends on that device alone, so groups with other sources read it from the disk.
        """
        device = self.space.device_names[column]
        path = self.plan.work / f"our-curve-{self.group.space}-{device}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                return kept["log_ms"], kept["rows"], float(kept["cpu_s"])
        rng = RandomStreams(self.plan.seed).numpy(f"our curve/{self.group.space}/{device}")
        started = time.thread_time()
        log_ms, rows = source_curve(own, self.latency_ms[:, column], networks=self.plan.source_networks, rng=rng)
        seconds = time.thread_time() - started
        temporary = path.with_name(f"{self.group.slug}-{path.name}")
        np.savez(temporary, log_ms=log_ms, rows=rows, cpu_s=seconds)
        temporary.replace(path)
        return log_ms, rows, seconds

    def _known_before(self) -> baselines.Background:
        """What the baselines know: features, and one curve for every source device."""
        if self._background is None:
            matrix = self.space.features.matrix[self.rows]
            streams = RandomStreams(self.plan.seed)
            curves = [self._curve(name, matrix, streams) for name in self.group.sources]
            self._background = baselines.make_background(self.space.features, self.rows, np.column_stack(curves))
        return self._background

    def _curve(self, device: str, matrix: np.ndarray, streams: RandomStreams) -> np.ndarray:
        path = self.plan.work / f"curve-{self.group.space}-{device}.npy"
        if path.is_file():
            return np.load(path, allow_pickle=False)
        column = self.latency_ms[:, self.space.device_names.index(device)]
        rng = streams.numpy(f"curve/{self.group.space}/{device}")
        curve = baselines.source_curve(matrix, column, networks=self.plan.source_networks, rng=rng)
        temporary = path.with_name(f"{self.group.slug}-{path.name}")
        np.save(temporary, curve)
        temporary.replace(path)
        return curve

    def timings(self) -> dict[str, Any] | None:
        """CPU seconds of a fit at 20 networks plus 10,000 predictions, median of three; None with fewer networks."""
        device = self.group.targets[0]
        measured = self._measured(device)
        if len(measured) < TIMED_AT + FEWEST_TESTED:
            return None
        latency_ms = self.latency_ms[:, self.space.device_names.index(device)]
        known = measured[:: len(measured) // TIMED_AT][:TIMED_AT]
        asked = np.resize(measured, TIMED_PREDICTIONS)
        seconds: dict[str, Any] = {}
        for method in TIMED:
            if method not in self.plan.methods:
                continue
            fit, taken = self._fitter(method), []
            for _ in range(TIMED_REPEATS):
                started = time.thread_time()
                fit(known, latency_ms[known], 0)(asked)
                taken.append(time.thread_time() - started)
            seconds[method] = float(np.median(taken))
        return {"space": self.group.space, "device": device, "cpu_s": seconds}


def _key(record: dict[str, Any]) -> tuple[object, ...]:
    return record["device"], record["k"], record["method"], record["draw"]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
