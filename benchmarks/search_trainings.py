"""The toy space ``tiny`` with real short trainings as quality: what engines find after a few dozen trainings.

Costs are the prior of this host, of which every engine knows all. The true front is not known; runs are compared by
their share of the hypervolume of everything that any of them trained, so 1 only says that nobody did better. Trained
architectures are kept by digest in a file that all runs share.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.pareto import hypervolume
from nas.core.rng import RandomStreams
from nas.pipeline.context import open_run
from nas.pipeline.costs import additive_costs, latency_range_ms, load_cost_table

if TYPE_CHECKING:
    from search_problems import Row

    from nas.core.cost import Budget
    from nas.pipeline.context import Context

STEPS, BACKBONE_STEPS, BATCH_SIZE, CLIPS = 40, 400, 8, 512
SETTINGS = f"{STEPS} steps of {BATCH_SIZE} from {BACKBONE_STEPS}, {CLIPS} clips"
RUN = """\
run: {{name: search_trainings, seed: 0, directory: {folder}}}
space: {{name: tiny, version: 1}}
scenario: {{frames: 8, height: 32, width: 32, denoising_steps: 4, guidance: false, precision: float32}}
device: {{name: host-cpu, threads: 1}}
budget: {{latency_share: 0.5, coverage: 0.9}}
search: {{engine: {{type: random}}, evaluations: 1}}
quality: {{type: temporal_capacity}}
"""


@dataclass(frozen=True, kw_only=True)
class TrainedProblem:
    """The toy space; quality is minus the held-out loss after a short training of its own."""

    name: str
    seed: int
    folder: Path
    settings: str = SETTINGS

    @cached_property
    def context(self) -> Context:
        """The open run, for space, costs and random streams."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "trainings.yaml"
        path.write_text(RUN.format(folder=self.folder / "run"))
        return open_run(str(path))

    @cached_property
    def cost_model(self) -> Any:
        """The cost table of the prior."""
        return load_cost_table(self.context)

    @cached_property
    def budget(self) -> Budget:
        """Half way from the cheapest to the dearest network."""
        limits = latency_range_ms(self.cost_model, self.space)
        return self.context.config.budget.build(*limits)

    @cached_property
    def costs(self) -> Any:
        """The additive table of the prior."""
        return additive_costs(self.cost_model, self.budget)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of options of each slot."""
        return tuple(len(self.space.options(slot)) for slot in self.space.slots())

    @cached_property
    def corner(self) -> tuple[float, float]:
        """The latency limit and the highest memory of random architectures."""
        random = np.random.default_rng(0).integers(self.sizes, size=(2000, len(self.sizes)))
        return float(self.budget.latency_ms or 0), float(self.objectives(random)[:, 1].max())

    @cached_property
    def quality_corner(self) -> float:
        """Quality of the network without temporal layers."""
        return self.judged((0,) * len(self.sizes))

    @property
    def reference(self) -> tuple[float, float, float]:
        """The corner in the order of ``points``."""
        return self.corner[0], -self.quality_corner, self.corner[1]

    @cached_property
    def volume(self) -> float:
        """Hypervolume of everything that was trained."""
        rows = np.array([kept["row"] for kept in self._kept().values()])
        return hypervolume(map(tuple, self.points(rows).tolist()), self.reference)

    @property
    def space(self) -> Any:
        """The space itself, which says more of an option than its number."""
        return self.context.space

    def objectives(self, options: np.ndarray) -> np.ndarray:
        """Return latency and peak memory."""
        costs = self.costs.score(options)
        return np.stack([costs.latency_ms, costs.peak_memory_mb], axis=1)

    def excess(self, options: np.ndarray) -> np.ndarray:
        """Return the excess of the upper end over the latency limit."""
        return (self.costs.score(options).latency_high_ms / self.corner[0] - 1.0)[:, None]

    def points(self, options: np.ndarray) -> np.ndarray:
        """Return latency, held-out loss and memory of the feasible ones, all of them trained before."""
        inside = options[self.costs.feasible(options, self.budget)]
        costs = self.objectives(inside)
        losses = [-self.judged(tuple(row)) for row in inside.tolist()]
        return np.stack([costs[:, 0], losses, costs[:, 1]], axis=1)

    def nearest(self, row: Row) -> Row:
        """Return ``row``: every combination exists."""
        return row

    def judged(self, row: Row) -> float:
        """Return the score of one architecture, from the file or from a training."""
        architecture = self.space.from_options(row)
        known = self._kept().get(architecture.digest)
        if known is None:
            quality = self._estimator.estimate(architecture)
            known = {"digest": architecture.digest, "row": list(row), "score": quality.score, "settings": SETTINGS}
            with self._file.open("a") as file:
                file.write(json.dumps(known) + "\n")
            self.__dict__.setdefault("_memory", {})[architecture.digest] = known
        return float(known["score"])

    @property
    def _file(self) -> Path:
        return self.folder / "trained.jsonl"

    def _kept(self) -> dict[str, dict[str, Any]]:
        """Return what any run has trained with these settings, by digest; the file is read when it has grown."""
        size = self._file.stat().st_size if self._file.exists() else 0
        if size != self.__dict__.get("_read_bytes", 0):
            lines = [json.loads(line) for line in self._file.read_text().splitlines() if line.endswith("}")]
            kept = {line["digest"]: line for line in lines if line["settings"] == SETTINGS}
            self.__dict__.update(_memory=kept, _read_bytes=size)
        return self.__dict__.get("_memory", {})

    @cached_property
    def _estimator(self) -> Any:
        from nas.quality import options, short_training

        settings = options.ShortTrainingOptions(
            steps=STEPS, batch_size=BATCH_SIZE, backbone_steps=BACKBONE_STEPS, clips=CLIPS
        )
        start = short_training.trained_start(
            self.space, settings, folder=self.folder / "backbone", streams=RandomStreams(0)
        )
        return short_training.ShortTraining(self.space, start, settings.loop)
