"""Lines of ``evaluation.json`` while a recipe runs: by the judge where clips can be shown, else by held-out loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.training.clip_features import FILE, clip_reference
from nas.training.evaluation import EvaluationRow, evaluate_row, read_evaluation, real_row, write_evaluation
from nas.training.held_out import TIMES, held_out_loss
from nas.training.processes import is_main, wait_for_all

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.training.clip_features import ClipReference
    from nas.training.data import TrainingClips
    from nas.training.options import EvaluationOptions
    from nas.training.sampling import Sampler
    from nas.training.stage import Kit, StageResult


class Rows:
    """Evaluation lines, each written as soon as it is known and read back when its stage was finished before.

    One process judges while others wait.

    Args:
        folder: Where ``evaluation.json`` and ``samples/`` go.
        options: How many clips, steps and so on.
        seed: Of captions and noise.
        progress: Hears what is judged.
        few_steps: Steps of the few-step lines.
        held_out: Clips for the held-out loss, for kits without a codec.
    """

    def __init__(
        self,
        folder: Path,
        options: EvaluationOptions,
        seed: int,
        progress: Progress,
        *,
        few_steps: int,
        held_out: TrainingClips | None,
    ) -> None:
        self._held_out = held_out
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
        """Judge real clips, where the kit can show clips."""
        if kit.codec is None or not is_main():
            return
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
        """Judge a network sampled in many steps with guidance."""
        steps, guidance = self._options.steps, self._options.guidance
        self._evaluate(
            result,
            f"{name}, {steps} steps, guidance {guidance:g}",
            steps=steps,
            guidance=guidance,
            num_clips=self._options.num_clips,
        )

    def add_few_steps(self, result: StageResult, name: str, *, sampler: Sampler = "euler") -> None:
        """Judge a network sampled in few steps without guidance."""
        self._evaluate(
            result,
            f"{name}, {self._few_steps} steps",
            steps=self._few_steps,
            guidance=1.0,
            num_clips=self._options.num_few_step_clips,
            sampler=sampler,
        )

    def finish(self) -> tuple[EvaluationRow, ...]:
        """Every line of this recipe, in order."""
        return tuple(self._rows)

    def _evaluate(
        self,
        result: StageResult,
        name: str,
        *,
        steps: int,
        guidance: float,
        num_clips: int,
        sampler: Sampler = "euler",
    ) -> None:
        if is_main():
            if result.kit.codec is None:
                name = f"{result.stage}, loss on held-out clips"
            if result.reused and name in self._known:
                self._add(self._known[name])
            elif name not in {row.name for row in self._rows}:
                self._progress.update(0, 1, f"evaluating {name}")
                self._add(self._row(result, name, steps=steps, guidance=guidance, num_clips=num_clips, sampler=sampler))
                self._progress.update(1, 1, f"evaluated {name}")
        wait_for_all()

    def _row(
        self, result: StageResult, name: str, *, steps: int, guidance: float, num_clips: int, sampler: Sampler
    ) -> EvaluationRow:
        if result.kit.codec is None:
            return self._held_out_row(result, name)
        return evaluate_row(
            result.kit,
            name=name,
            stage=result.stage,
            steps=steps,
            guidance=guidance,
            num_clips=num_clips,
            seed=self._seed,
            folder=self._folder,
            clip=f"samples/{result.stage}-{steps}.gif",
            sampler=sampler,
            reference=self._reference(result.kit),
        )

    def _held_out_row(self, result: StageResult, name: str) -> EvaluationRow:
        if self._held_out is None:
            raise ValueError("clips that cannot be shown are judged by held-out ones, and none were given")
        return EvaluationRow(
            name=name,
            stage=result.stage,
            steps=1,
            guidance=1.0,
            sampler="none",
            calls=len(TIMES),
            metrics=held_out_loss(result.kit, self._held_out, seed=self._seed),
            num_clips=len(self._held_out),
            clip="",
        )

    def _add(self, row: EvaluationRow) -> None:
        self._rows.append(row)
        later = [known for name, known in self._known.items() if name not in {row.name for row in self._rows}]
        write_evaluation(self._path, [*self._rows, *later])
