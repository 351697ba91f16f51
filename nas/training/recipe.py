"""All stages of one model in order: teacher, distillation, trajectory, adversarial; each evaluated and sampled.

A stage that is not asked for must be on disk, so each can run alone from what those before it left.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from nas.core.errors import InputError
from nas.core.protocols import Progress, SilentProgress
from nas.core.rng import RandomStreams
from nas.training.acceleration import training_device
from nas.training.adversarial import tune_adversarially
from nas.training.consistency import distil_consistency
from nas.training.data import TrainingClips
from nas.training.distillation import distil
from nas.training.evaluation import EvaluationRow
from nas.training.noise import FIXED_TIMES
from nas.training.options import MAIN_STAGES, RecipeOptions
from nas.training.processes import main_first
from nas.training.progressive import distil_progressively
from nas.training.rows import Rows
from nas.training.stage import Kit, StageResult
from nas.training.teacher import train_teacher
from nas.training.trajectory import Trajectories, collect_trajectories, distil_trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nas.training.sampling import Sampler


# Stage → the one it starts from, in the order of work. Every student stage needs the teacher too; consistency and
# progressive are baselines on copies of the distilled student, before the stages after it change it.
STARTS_FROM: dict[str, str | None] = {
    "teacher": None,
    "distillation": "teacher",
    "consistency": "distillation",
    "progressive": "distillation",
    "trajectory": "distillation",
    "adversarial": "trajectory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeResult:
    """The stages that ran or were found, in order, and the lines of ``evaluation.json`` of those asked for."""

    stages: tuple[StageResult, ...]
    rows: tuple[EvaluationRow, ...]

    @property
    def final(self) -> StageResult:
        """The last stage; of the whole recipe the adversarially tuned student."""
        return self.stages[-1]


def train_model(
    teacher: Kit,
    student: nn.Module,
    data: TrainingClips,
    *,
    options: RecipeOptions,
    folder: Path,
    streams: RandomStreams,
    progress: Progress | None = None,
    teacher_folder: Path | None = None,
    times: tuple[float, ...] = FIXED_TIMES,
    stages: Sequence[str] = MAIN_STAGES,
    held_out: TrainingClips | None = None,
    taught: StageResult | None = None,
) -> RecipeResult:
    """Train teacher and student in place through ``stages``, evaluate each, and write ``folder``.

    ``folder`` gets ``metrics.jsonl``, ``evaluation.json``, ``samples/*.gif`` and one folder a stage. Interrupted, it
    goes on from the last checkpoint; finished, it returns at once.

    Args:
        teacher: Network to be the teacher, with captions and codec of both.
        student: Network to be the few-step model.
        data: Clips to learn from.
        options: Of every stage.
        folder: Where everything goes.
        streams: Source of randomness.
        progress: Hears of every logged step.
        teacher_folder: Where the teacher goes, so that several students can share it.
        times: Of the student's steps.
        stages: Names out of ``STARTS_FROM``; what these start from and is not named must be finished in ``folder``.
        held_out: Clips that a kit without a codec is judged by.
        taught: A finished teacher from elsewhere, in place of the first stage.

    Raises:
        InputError: A stage that is not to run is not finished on disk; all of them are named.
        TrainingError: A loss is not finite or explodes; the message names stage and step.
        CheckpointError: A file in ``folder`` cannot be used.
    """
    course = _Course(
        teacher=teacher,
        student=student,
        data=data,
        options=options,
        folder=folder,
        streams=streams,
        progress=progress or SilentProgress(),
        teacher_folder=teacher_folder or folder / "teacher",
        times=times,
        taught=taught,
    )
    teacher.to(training_device())
    student.to(training_device())
    needed = needed_stages(stages)
    course.require_finished(tuple(name for name in needed if name not in stages))
    seed = streams.integer("evaluation") % 2**31
    rows = Rows(folder, options.evaluation, seed, course.progress, few_steps=len(times), held_out=held_out)
    rows.add_real(teacher)
    results = []
    for name in needed:
        results.append(course.run(name))
        if name in stages:
            _judge(rows, results[-1], sampler=sampler_of(name, options))
    return RecipeResult(stages=tuple(results), rows=rows.finish())


def train_student(
    taught: StageResult,
    student: nn.Module,
    data: TrainingClips,
    *,
    options: RecipeOptions,
    folder: Path,
    streams: RandomStreams,
    progress: Progress | None = None,
    times: tuple[float, ...] = FIXED_TIMES,
) -> RecipeResult:
    """The student stages of ``train_model`` after a finished teacher, and all evaluation lines."""
    return train_model(
        taught.kit,
        student,
        data,
        options=options,
        folder=folder,
        streams=streams,
        progress=progress,
        times=times,
        taught=taught,
    )


def needed_stages(stages: Sequence[str]) -> tuple[str, ...]:
    """Named stages and all that they start from, in the order of work."""
    needed = set()
    for name in stages:
        following: str | None = name
        while following is not None:
            needed.add(following)
            following = STARTS_FROM[following]
    return tuple(name for name in STARTS_FROM if name in needed)


@dataclass(slots=True, kw_only=True)
class _Course:
    """What the stages share, and what they left so far."""

    teacher: Kit
    student: nn.Module
    data: TrainingClips
    options: RecipeOptions
    folder: Path
    streams: RandomStreams
    progress: Progress
    teacher_folder: Path
    times: tuple[float, ...]
    taught: StageResult | None
    ways: Trajectories | None = None
    results: dict[str, StageResult] = field(default_factory=dict)

    def place(self, name: str) -> Path:
        return self.teacher_folder if name == "teacher" else self.folder / name

    def require_finished(self, names: Sequence[str]) -> None:
        given = () if self.taught is None else ("teacher",)
        missing = [name for name in names if name not in given and not (self.place(name) / "stage.json").is_file()]
        if missing:
            raise InputError(
                "; ".join(f"stage {name!r} is not finished: {self.place(name)} has no stage.json" for name in missing),
                hint=f"run it first, alone with `--only {missing[0]}`, or leave --only out to run all in order",
            )

    def run(self, name: str) -> StageResult:
        """Run a stage, or read what it left."""
        run: Callable[[Path, Path], StageResult] = getattr(self, f"_{name}")
        self.results[name] = run(self.place(name), self.folder / "metrics.jsonl")
        return self.results[name]

    def _teacher(self, folder: Path, metrics: Path) -> StageResult:
        return self.taught or train_teacher(
            self.teacher,
            self.data,
            options=self.options.teacher,
            folder=folder,
            streams=self.streams,
            metrics=metrics,
            progress=self.progress,
        )

    def _distillation(self, folder: Path, metrics: Path) -> StageResult:
        return distil(
            self._own(),
            self.results["teacher"].kit,
            self.data,
            options=self.options.distillation,
            folder=folder,
            streams=self.streams,
            metrics=metrics,
            progress=self.progress,
        )

    def _trajectory(self, folder: Path, metrics: Path) -> StageResult:
        return distil_trajectory(
            self._own(),
            self._trajectories(),
            options=self.options.trajectory,
            folder=folder,
            streams=self.streams,
            metrics=metrics,
            progress=self.progress,
        )

    def _adversarial(self, folder: Path, metrics: Path) -> StageResult:
        return tune_adversarially(
            self._own(),
            self.results["teacher"].kit,
            self.data,
            self._trajectories(),
            options=self.options.adversarial,
            folder=folder,
            streams=self.streams,
            metrics=metrics,
            progress=self.progress,
        )

    def _consistency(self, folder: Path, metrics: Path) -> StageResult:
        return distil_consistency(
            self._copy(),
            self.results["teacher"].kit,
            self.data,
            options=self.options.consistency,
            folder=folder,
            streams=self.streams,
            metrics=metrics,
            progress=self.progress,
        )

    def _progressive(self, folder: Path, metrics: Path) -> StageResult:
        return distil_progressively(
            self._copy(),
            self.results["teacher"].kit,
            self.data,
            options=self.options.progressive,
            folder=folder,
            streams=self.streams,
            metrics=metrics,
            progress=self.progress,
        )

    def _copy(self) -> Kit:
        """A baseline's own copy of the student."""
        return self._own().with_denoiser(copy.deepcopy(self.student))

    def _own(self) -> Kit:
        """The student with the teacher's captions."""
        return self.results["teacher"].kit.with_denoiser(self.student)

    def _trajectories(self) -> Trajectories:
        if self.ways is None:
            with main_first():
                self.ways = collect_trajectories(
                    self.results["teacher"].kit,
                    self.data,
                    options=self.options.collection,
                    path=self.folder / "trajectories.safetensors",
                    streams=self.streams,
                    times=self.times,
                    progress=self.progress,
                )
        return self.ways


def sampler_of(stage: str, options: RecipeOptions) -> Sampler:
    """How the few-step student of a stage is sampled."""
    samplers: dict[str, Sampler] = {"adversarial": options.adversarial.sampler, "consistency": "renoise"}
    return samplers.get(stage, "euler")


def _judge(rows: Rows, result: StageResult, *, sampler: Sampler) -> None:
    if result.stage == "teacher":
        rows.add_many_steps(result, "teacher")
    elif result.stage == "distillation":
        rows.add_many_steps(result, "student after distillation")
        rows.add_few_steps(result, "plain student (after distillation)")
    else:
        names = {"trajectory": "trajectory distillation", "adversarial": "adversarial tuning"}
        names |= {"consistency": "consistency distillation", "progressive": "progressive distillation"}
        rows.add_few_steps(result, f"student after {names[result.stage]}", sampler=sampler)
