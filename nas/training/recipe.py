"""All stages of one model in order: teacher, distillation, trajectory, adversarial; each evaluated and sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.protocols import SilentProgress
from nas.training.adversarial import tune_adversarially
from nas.training.clip_features import FILE, clip_reference
from nas.training.distillation import distil
from nas.training.evaluation import EvaluationRow, evaluate_row, read_evaluation, real_row, write_evaluation
from nas.training.noise import FIXED_TIMES
from nas.training.stage import StageResult
from nas.training.teacher import train_teacher
from nas.training.trajectory import collect_trajectories, distil_trajectory

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.training.clip_features import ClipReference
    from nas.training.data import TrainingClips
    from nas.training.options import EvaluationOptions, RecipeOptions
    from nas.training.stage import Kit


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeResult:
    """The finished stages in order, and the lines of ``evaluation.json``; the last stage's folder is the model."""

    stages: tuple[StageResult, ...]
    rows: tuple[EvaluationRow, ...]

    @property
    def final(self) -> StageResult:
        """The adversarially tuned student."""
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
) -> RecipeResult:
    """Train teacher and student in place through all four stages, evaluate each, and write ``folder``.

    ``folder`` gets ``metrics.jsonl``, ``evaluation.json``, ``samples/*.gif`` and one folder a stage (``teacher``,
    ``distillation``, ``trajectory``, ``adversarial``). Interrupted, it goes on from the last checkpoint; finished, it
    returns at once. ``teacher_folder`` lets several students share a teacher; ``times`` are those of the student's
    steps.

    Raises:
        TrainingError: A loss is not finite; the message names stage and step.
        CheckpointError: A file in ``folder`` cannot be used.
    """
    taught = train_teacher(
        teacher,
        data,
        options=options.teacher,
        folder=teacher_folder or folder / "teacher",
        streams=streams,
        metrics=folder / "metrics.jsonl",
        progress=progress,
    )
    return train_student(
        taught, student, data, options=options, folder=folder, streams=streams, progress=progress, times=times
    )


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
    """The three student stages of ``train_model`` after a finished teacher, and all evaluation lines.

    Raises:
        TrainingError: A loss is not finite; the message names stage and step.
        CheckpointError: A file in ``folder`` cannot be used.
    """
    progress = progress or SilentProgress()
    metrics = folder / "metrics.jsonl"
    teacher = taught.kit
    own = teacher.with_denoiser(student)
    seed = streams.integer("evaluation") % 2**31
    rows = _Rows(folder, options.evaluation, seed, progress, few_steps=len(times))
    rows.add_real(teacher)
    rows.add_many_steps(taught, "teacher")
    distilled = distil(
        own,
        teacher,
        data,
        options=options.distillation,
        folder=folder / "distillation",
        streams=streams,
        metrics=metrics,
        progress=progress,
    )
    rows.add_many_steps(distilled, "student after distillation")
    rows.add_few_steps(distilled, "plain student (after distillation)")
    trajectories = collect_trajectories(
        teacher,
        data,
        options=options.collection,
        path=folder / "trajectories.safetensors",
        streams=streams,
        times=times,
        progress=progress,
    )
    followed = distil_trajectory(
        own,
        trajectories,
        options=options.trajectory,
        folder=folder / "trajectory",
        streams=streams,
        metrics=metrics,
        progress=progress,
    )
    rows.add_few_steps(followed, "student after trajectory distillation")
    tuned = tune_adversarially(
        own,
        teacher,
        data,
        trajectories,
        options=options.adversarial,
        folder=folder / "adversarial",
        streams=streams,
        metrics=metrics,
        progress=progress,
    )
    rows.add_few_steps(tuned, "student after adversarial tuning")
    return RecipeResult(stages=(taught, distilled, followed, tuned), rows=rows.finish())


class _Rows:
    """Evaluation lines, each written as soon as it is known and read back when its stage was finished before."""

    def __init__(
        self, folder: Path, options: EvaluationOptions, seed: int, progress: Progress, *, few_steps: int
    ) -> None:
        self._folder = folder
        self._options = options
        self._seed = seed
        self._progress = progress
        self._few_steps = few_steps
        self._path = folder / "evaluation.json"
        self._known = {row.name: row for row in read_evaluation(self._path)} if self._path.exists() else {}
        self._rows: list[EvaluationRow] = []
        self._compared: ClipReference | None = None

    def add_real(self, kit: Kit) -> None:
        self._add(
            self._known.get("real clips")
            or real_row(
                num_clips=self._options.num_few_step_clips,
                seed=self._seed,
                folder=self._folder,
                frames=kit.latent_shape[0],
                size=kit.clip_size,
                reference=self._reference(kit),
            )
        )

    def _reference(self, kit: Kit) -> ClipReference | None:
        """What generated clips are compared with, trained when first needed."""
        if self._compared is None and self._options.feature_steps:
            self._progress.update(0, 1, "training the classifier under Frechet distances")
            self._compared = clip_reference(
                self._folder / FILE,
                steps=self._options.feature_steps,
                frames=kit.latent_shape[0],
                size=kit.clip_size,
            )
        return self._compared

    def add_many_steps(self, result: StageResult, name: str) -> None:
        steps, guidance = self._options.steps, self._options.guidance
        self._evaluate(
            result,
            f"{name}, {steps} steps, guidance {guidance:g}",
            steps=steps,
            guidance=guidance,
            num_clips=self._options.num_clips,
        )

    def add_few_steps(self, result: StageResult, name: str) -> None:
        self._evaluate(
            result,
            f"{name}, {self._few_steps} steps",
            steps=self._few_steps,
            guidance=1.0,
            num_clips=self._options.num_few_step_clips,
        )

    def finish(self) -> tuple[EvaluationRow, ...]:
        return tuple(self._rows)

    def _evaluate(self, result: StageResult, name: str, *, steps: int, guidance: float, num_clips: int) -> None:
        if result.reused and name in self._known:
            self._add(self._known[name])
            return
        self._progress.update(0, 1, f"evaluating {name}")
        row = evaluate_row(
            result.kit,
            name=name,
            stage=result.stage,
            steps=steps,
            guidance=guidance,
            num_clips=num_clips,
            seed=self._seed,
            folder=self._folder,
            clip=f"samples/{result.stage}-{steps}.gif",
            reference=self._reference(result.kit),
        )
        self._add(row)
        self._progress.update(1, 1, f"evaluated {name}")

    def _add(self, row: EvaluationRow) -> None:
        self._rows.append(row)
        later = [known for name, known in self._known.items() if name not in {row.name for row in self._rows}]
        write_evaluation(self._path, [*self._rows, *later])
