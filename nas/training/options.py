"""Settings of every training stage, each with the source of its default; without torch, so that a YAML loads fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Guidance = Annotated[float, Field(ge=1.0)]
# Stages of the recipe in order; consistency and progressive are baselines that start from the distilled student.
StageName = Literal["teacher", "distillation", "consistency", "progressive", "trajectory", "adversarial"]
MAIN_STAGES: tuple[StageName, ...] = ("teacher", "distillation", "trajectory", "adversarial")
# Options of the loop that leave the losses as they are, up to rounding: a stage may go on with others.
_NO_OUTCOME = (
    "checkpoint_every", "divergence_ratio", "gradient_checkpointing", "log_every", "sharding", "tensorboard", "threads",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """What every stage shares; defaults are those of the toy task, tuned on two CPU cores.

    Attributes:
        steps: Optimizer steps; fixed, so that a run does not depend on the machine's speed.
        batch_size: Clips of one micro-batch.
        learning_rate: Peak rate of AdamW (2e-3: TRAINING section 2).
        warmup_steps: Steps of linear rise (ours).
        final_ratio: Rate at the end of the cosine as a share of the peak (ours).
        weight_decay: AdamW's (torch's default is 0.01).
        betas: AdamW's; (0.9, 0.99) forgets faster than torch's default, which suits short runs (ours).
        gradient_clip: Largest gradient norm (1: TRAINING 3.4).
        ema_decay: Upper limit of the average's decay (0.99 and up: TRAINING 3.4).
        accumulation: Micro-batches a step. Several processes share them, each takes as many, so that one YAML gives
            the same batches and noise on one GPU as on eight; it must be a multiple of their number.
        precision: Arithmetic of the forward passes; weights stay float32. (float16 would need its losses scaled.)
        gradient_checkpointing: Compute activations again in the backward pass instead of keeping them: less memory,
            about a third more time (ours; off at toy size).
        sharding: What several processes do with weights, gradients and the optimizer's state: ``none`` keeps a copy
            each, ``full`` spreads them (FSDP, arXiv 2304.11277). Averages are spread with the weights.
        divergence_ratio: A loss above this many times its running median for five steps stops the stage (ours); null
            never does.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of ``metrics.jsonl``, each the mean since the last.
        threads: Torch's CPU threads while training; torch's own choice when left out. Batches of 16 toy clips run
            slower on two threads than on one, batches of 32 faster.
        tensorboard: Write TensorBoard events beside ``metrics.jsonl``.
    """

    steps: Count
    batch_size: Count = 32
    learning_rate: Positive = 2e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    final_ratio: Ratio = 0.02
    weight_decay: Weight = 0.01
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    gradient_clip: Positive = 1.0
    ema_decay: Decay = 0.99
    accumulation: Count = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    sharding: Literal["none", "full"] = "none"
    divergence_ratio: Annotated[float, Field(gt=1.0)] | None = 20.0
    checkpoint_every: Count = 200
    log_every: Count = 20
    threads: Count | None = None
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"training option {name} must be at least 1, got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"training option threads must be at least 1, got {self.threads}")

    def outcome(self) -> dict[str, Any]:
        """The options that decide the outcome, as plain data: not how it is computed, watched or kept."""
        data = {name: getattr(self, name) for name in self.__slots__ if name not in _NO_OUTCOME}
        return data | {"betas": list(self.betas)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseOptions:
    """How noisy training samples are drawn.

    Attributes:
        time_mean: Mean of the normal variable under the logit-normal times; above 0 means more noise, where motion is
            decided (ours; Stable Diffusion 3 uses 0).
        time_std: Its standard deviation (1: Stable Diffusion 3).
        text_dropout: Share of captions replaced by the empty one (0.1: TRAINING section 2).
        image_ratio: Share of batches made of single frames (0.2: TRAINING section 2, adversarial run).
    """

    time_mean: float = 0.5
    time_std: Positive = 1.0
    text_dropout: Ratio = 0.1
    image_ratio: Ratio = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherOptions:
    """Options of ``train_teacher``; steps are set for about 240 s on two CPU cores."""

    loop: LoopOptions = field(default_factory=lambda: LoopOptions(steps=2400))
    noise: NoiseOptions = field(default_factory=NoiseOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationOptions:
    """Options of ``distil``; steps are set for about 60 s on two CPU cores.

    Attributes:
        loop: Steps and rates.
        noise: How samples are drawn.
        scaling: How the losses on the data, on the teacher's output and on its features are added: ``fixed`` by the
            three weights below, ``timestep_aware`` by SnapGen's S(task, output) + S(task, features), which has none;
            on the toy the fixed weights ended up to 4 % lower in every held-out loss
            (benchmarks/results/distillation.md).
        task_weight: Weight of the flow-matching loss on the data (ours).
        output_weight: Weight of |v_student - v_teacher|^2 (SnapFusion and SnapGen use both levels; weights ours).
        feature_weight: Weight of the normalised feature loss (ours).
        start_from_teacher: Begin with the teacher's weights wherever name and shape agree: the whole spatial backbone,
            where both share it, and temporal layers of the same kind and width. The rest keeps what it came with.
        draws: Noisy versions of every clip, fixed once; fresh noise at every step when left out (ours).
        cache: Keep the teacher's answers to the fixed ``draws`` on disk; changes no loss.
    """

    loop: LoopOptions = field(default_factory=lambda: LoopOptions(steps=400, learning_rate=1e-3))
    noise: NoiseOptions = field(default_factory=NoiseOptions)
    scaling: Literal["fixed", "timestep_aware"] = "fixed"
    task_weight: Weight = 0.5
    output_weight: Weight = 1.0
    feature_weight: Weight = 0.1
    start_from_teacher: bool = True
    draws: Count | None = None
    cache: bool = False

    def __post_init__(self) -> None:
        if self.cache and self.draws is None:
            raise ValueError("distillation option cache needs draws: fresh noise never asks the same thing twice")


_IMAGES = NoiseOptions(image_ratio=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustOptions:
    """Options of ``train_robustly``, which trains with blocks left out at random before they are judged.

    Attributes:
        loop: Steps and rates.
        noise: How samples are drawn; images only.
        skip_ratio: Probability that a step leaves a block out (SnapFusion does so and does not say how often; 0.1 is
            stochastic depth's usual order, arXiv:1603.09382 ends at 0.5; ours).
        task_weight: Weight of the flow-matching loss on the data (ours).
        output_weight: Weight of |v - v_unpruned|^2 (ours).
        feature_weight: Weight of the normalised feature loss (ours).
    """

    loop: LoopOptions = field(default_factory=lambda: LoopOptions(steps=300, learning_rate=5e-4))
    noise: NoiseOptions = _IMAGES
    skip_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    task_weight: Weight = 0.5
    output_weight: Weight = 1.0
    feature_weight: Weight = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceOptions:
    """How a removal is judged: on ``batches`` held-out batches of ``batch_size`` noisy images (ours)."""

    batches: Annotated[int, Field(ge=2)] = 8
    batch_size: Count = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionOptions:
    """How the teacher's ways are collected.

    Attributes:
        num_clips: Number of ways.
        substeps: Euler steps between two of the fixed times (2 or more: TRAINING 3.5).
        guidance: Weight of classifier-free guidance (3: TRAINING section 2).
        batch_size: Ways per denoiser call.
    """

    num_clips: Count = 768
    substeps: Count = 3
    guidance: Guidance = 3.0
    batch_size: Count = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryOptions:
    """Options of ``distil_trajectory``; steps are set for about 60 s on two CPU cores, collection included.

    Attributes:
        loop: Steps and rates.
        huber_width: Width c of the pseudo-Huber loss (ours; near the square root of the final loss).
    """

    loop: LoopOptions = field(default_factory=lambda: LoopOptions(steps=400, learning_rate=1e-3))
    huber_width: Positive = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialOptions:
    """Options of ``tune_adversarially``; CPU seconds of its steps are in benchmarks/results/few_step.md.

    Attributes:
        loop: Steps and rates; the learning rate is the generator's.
        heads_rate_ratio: Rate of the heads over the generator's (10: SF-V, METHODS 2c).
        betas: Of both optimizers ((0.5, 0.99): TRAINING 3.4).
        generator_input: What the generator starts from. ``real``: a real clip, noisy at one of the fixed times, and the
            clean clip it predicts is judged (SF-V, SnapGen-V). ``trajectory``: the state of a guided teacher's way at
            the last but one of the fixed times; a step of the sampler later its last step is judged, so that the steps
            before, which decide what is shown, stay the anchor's alone (ours).
        sampler: How the tuned student is sampled (TRAINING section 2: renoising beats Euler steps for it every time).
        anchor_weight: Weight of the trajectory term that keeps attributes (ours).
        reconstruction: Distance of the predicted from the real clip: ``pseudo_huber`` (SF-V) or ``flow``, the square
            of the velocity's error (SnapGen-V, METHODS 1c). At all fixed times for the input ``real``; for
            ``trajectory`` of the last step alone, from what the step before it makes of the noisy real clip, so that it
            learns to put right what that one left unsteady (ours, for flicker; benchmarks/results/few_step.md).
        reconstruction_weight: Weight lambda of it (SF-V has 0.1 of pseudo-Huber at its one step; ours).
        reconstruction_guidance: Weight w of guidance in what is reconstructed: (w - 1) (v_text - v_empty) of the
            teacher is added to the velocity asked for (model-guidance, arXiv 2502.12154); 1 is the real clip itself,
            which costs attributes that the guided teacher had (ours).
        adversarial_weight: Weight of the hinge term of the generator (ours).
        huber_width: Width of both pseudo-Huber terms (ours).
        image_heads: Show single frames to the heads too, beside the clips of the same step (SnapGen-V's image-video
            heads; what they earn is in benchmarks/results/few_step.md). Never reconstructed: a frame has no motion.
        video_heads: Give the heads their part over frames.
        image_ratio: Single frames judged per clip judged, with ``image_heads``, and their weight in both hinge terms
            against that of the clips (ours; chosen on one seed).
        mismatch_ratio: Share of real clips shown to the heads with another clip's caption as fakes (an option of
            TRAINING 3.4).
        r1_weight: Weight gamma of R1 on real clips; 0 leaves it out (SF-V has R1, its gamma is not published).
        r1_on: Take R1's gradient by the heads' inputs (``features``, TRAINING 3.4; cheap) or by the noisy clip.
        noise: The discriminator's time: ``logit_normal`` (SnapGen-V) or SF-V's discretised ``log_normal`` of sigma,
            taken to t = sigma / (1 + sigma).
        time_mean: Mean of the normal variable under it, P_mean of SF-V (-1 there; 0 is symmetric for logit-normal).
        time_std: Its standard deviation (1: SF-V).
        head_width: Channels inside the heads (ours).
    """

    loop: LoopOptions = field(
        default_factory=lambda: LoopOptions(steps=180, batch_size=16, learning_rate=1e-3, warmup_steps=10, threads=1)
    )
    heads_rate_ratio: Positive = 4.0
    betas: tuple[Decay, Decay] = (0.5, 0.99)
    generator_input: Literal["real", "trajectory"] = "trajectory"
    sampler: Literal["euler", "renoise"] = "renoise"
    anchor_weight: Weight = 1.0
    reconstruction: Literal["pseudo_huber", "flow"] = "flow"
    reconstruction_weight: Weight = 2.0
    reconstruction_guidance: Guidance = 2.0
    adversarial_weight: Weight = 0.3
    huber_width: Positive = 0.3
    image_heads: bool = True
    video_heads: bool = True
    image_ratio: Ratio = 0.5
    mismatch_ratio: Ratio = 0.25
    r1_weight: Weight = 0.0
    r1_on: Literal["features", "clips"] = "features"
    noise: Literal["logit_normal", "log_normal"] = "logit_normal"
    time_mean: float = -2.0
    time_std: Positive = 1.0
    head_width: Annotated[int, Field(ge=8, multiple_of=8)] = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyOptions:
    """Options of ``distil_consistency``, a baseline.

    Attributes:
        loop: Steps and rates.
        grid_steps: Equal Euler steps of the teacher from noise to clip (50: LCM, arXiv 2310.04378, whose solver skips
            20 of 1,000 steps).
        guidance: Weight of the teacher's guidance (3, as the other stages; LCM draws it anew for every sample).
        target_decay: Decay of the target network's running average (0.95: LCM).
        huber_width: Width of the pseudo-Huber distance (ours).
    """

    loop: LoopOptions = field(default_factory=lambda: LoopOptions(steps=400, batch_size=16, learning_rate=1e-3))
    grid_steps: Count = 50
    guidance: Guidance = 3.0
    target_decay: Decay = 0.95
    huber_width: Positive = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressiveOptions:
    """Options of ``distil_progressively``, a baseline.

    Attributes:
        loop: Steps and rates of each halving.
        teacher_steps: Steps of the guided teacher (32: SnapFusion's first teacher, METHODS 3c).
        final_steps: Steps of the last student.
        guidance: Weight of the teacher's guidance, folded in at the first halving (3: TRAINING section 2).
        huber_width: Width of the pseudo-Huber distance (ours).
    """

    loop: LoopOptions = field(default_factory=lambda: LoopOptions(steps=200, batch_size=16, learning_rate=1e-3))
    teacher_steps: Count = 32
    final_steps: Count = 4
    guidance: Guidance = 3.0
    huber_width: Positive = 0.3

    def __post_init__(self) -> None:
        if self.student_steps[-1:] != (self.final_steps,):
            raise ValueError(
                f"progressive distillation halves {self.teacher_steps} steps and never comes to {self.final_steps}; "
                "make teacher_steps final_steps times a power of two, at least two"
            )

    @property
    def student_steps(self) -> tuple[int, ...]:
        """Steps of each student in turn: 16, 8 and 4 for 32 and 4."""
        counts, steps = [], self.teacher_steps
        while steps > self.final_steps and steps % 2 == 0:
            steps //= 2
            counts.append(steps)
        return tuple(counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """How the stages are judged.

    Attributes:
        steps: Steps of the multi-step rows (25: SnapGen-V).
        guidance: Guidance of the multi-step rows (3: TRAINING section 2).
        num_clips: Clips of a multi-step row; a multiple of 18 shows each held-out caption equally often.
        num_few_step_clips: Clips of a four-step row, which cost a twelfth.
        feature_steps: Training steps of the classifier under Frechet distances (ours: 0.96 of real held-out clips
            wholly right after 200 steps, 21 CPU seconds); 0 leaves distances from real clips out.
    """

    steps: Count = 25
    guidance: Guidance = 3.0
    num_clips: Annotated[int, Field(ge=18)] = 72
    num_few_step_clips: Annotated[int, Field(ge=18)] = 288
    feature_steps: Annotated[int, Field(ge=0)] = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOptions:
    """Options of every stage."""

    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    collection: CollectionOptions = field(default_factory=CollectionOptions)
    trajectory: TrajectoryOptions = field(default_factory=TrajectoryOptions)
    adversarial: AdversarialOptions = field(default_factory=AdversarialOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    consistency: ConsistencyOptions = field(default_factory=ConsistencyOptions)
    progressive: ProgressiveOptions = field(default_factory=ProgressiveOptions)
