"""What a stage's step needs of one GPU's memory, found by running the step on tensors without data.

torch's fake tensors go through the real networks, forward and backward, while what is alive is added up; the state of
the optimizer and the average are counted by hand. On a CPU the sum agrees with what torch's profiler sees a real step
allocate within 2 % (tests/training/test_memory_plan.py). Nothing here was compared with a GPU yet: kernels that differ
there, workspaces and fragmentation are in ``OVERHEAD_BYTES`` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F  # the customary name
from torch import Tensor, nn

from nas.models.discriminator import VideoDiscriminator, feature_channels
from nas.models.unet import VideoUNet
from nas.training.live_memory import LiveMemory
from nas.training.processes import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nas.training.options import LoopOptions

# CUDA context, cuBLAS and cuDNN workspaces (ours, a round figure; not measured).
OVERHEAD_BYTES = 1_500_000_000
_FLOAT = 4  # bytes of a float32: weights, gradients and all state stay in it


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMemory:
    """Bytes on one GPU at the worst moment of a stage's step.

    Attributes:
        stage: Name of the stage.
        processes: GPUs that share the step.
        batch_size: Clips of a micro-batch; this and what follows are options of the loop.
        precision: Of the forward passes.
        gradient_checkpointing: Whether activations are computed again.
        sharding: Whether weights and state are spread.
        parameters: Trained parameters.
        weights: Of trained networks.
        frozen: Weights of teachers and targets, whole on every GPU.
        optimizer: Both moments of AdamW.
        average: Running averages.
        gradients: At that moment.
        activations: Kept for the backward pass, and temporary tensors, at that moment.
        overhead: See ``OVERHEAD_BYTES``.
    """

    stage: str
    processes: int
    batch_size: int
    precision: str
    gradient_checkpointing: bool
    sharding: str
    parameters: int
    weights: int
    frozen: int
    optimizer: int
    average: int
    gradients: int
    activations: int
    overhead: int = OVERHEAD_BYTES

    @property
    def total(self) -> int:
        """Everything together."""
        return (
            self.weights
            + self.frozen
            + self.optimizer
            + self.average
            + self.gradients
            + self.activations
            + self.overhead
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNetworks:
    """What a stage's step runs, on any device: shapes alone count.

    ``latent_shape`` is (T, C, H, W), ``text_shape`` (N, D).
    """

    student: VideoUNet
    teacher: VideoUNet
    latent_shape: tuple[int, int, int, int]
    text_shape: tuple[int, int]
    head_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fake:
    """The same networks without data, and one batch."""

    student: VideoUNet
    teacher: VideoUNet
    heads: VideoDiscriminator | None
    clips: Tensor
    times: Tensor
    text: Tensor


def step_memory(stage: str, networks: StepNetworks, loop: LoopOptions, *, processes: int = 1) -> StepMemory:
    """Return what one step of a stage needs on each of ``processes`` GPUs."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = _fake(stage, networks, loop)
        trained, frozen = _TRAINED[stage](fake), _FROZEN[stage](fake)
        for network in (fake.student, fake.teacher):
            if loop.gradient_checkpointing:
                network.enable_gradient_checkpointing()
            else:
                network.disable_gradient_checkpointing()
        live = LiveMemory(parameter for module in trained for parameter in module.parameters())
        live.ignore([tensor for module in (*trained, *frozen) for tensor in (*module.parameters(), *module.buffers())])
        live.ignore([fake.clips, fake.times, fake.text])
        with live:
            for phase in _PHASES[stage]:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=loop.precision == "bfloat16"):
                    loss = phase(fake)
                cast("Any", loss).backward()
                del loss
                for module in trained:
                    module.zero_grad()
    own = sum(_bytes(module) for module in trained)
    gradients, rest = live.peak_gradient_bytes, live.peak_bytes - live.peak_gradient_bytes
    if live.peak_bytes < own:  # then the worst moment is the optimizer's step, with all gradients and nothing else
        gradients, rest = own, 0
    share = processes if loop.sharding == "full" else 1
    gathered = 0 if share == 1 else 2 * max(_largest_block(module) for module in trained)
    averaged = sum(_bytes(module) for module in trained if module is not fake.heads)
    return StepMemory(
        stage=stage,
        processes=processes,
        batch_size=loop.batch_size,
        precision=loop.precision,
        gradient_checkpointing=loop.gradient_checkpointing,
        sharding=loop.sharding,
        parameters=own // _FLOAT,
        weights=own // share + gathered,
        frozen=sum(_bytes(module) for module in frozen),
        optimizer=2 * own // share,
        average=averaged // share,
        gradients=gradients // share,
        activations=rest,
    )


def _fake(stage: str, networks: StepNetworks, loop: LoopOptions) -> _Fake:
    student, teacher = _without_data(networks.student), _without_data(networks.teacher)
    teacher.requires_grad_(stage == "teacher")
    student.requires_grad_(stage != "teacher")
    clips = torch.empty(loop.batch_size, *networks.latent_shape)
    times, text = torch.empty(loop.batch_size), torch.empty(loop.batch_size, *networks.text_shape)
    heads = None
    if stage == "adversarial":
        channels = feature_channels(teacher, sample=clips, timestep=times, tokens=text)
        heads = VideoDiscriminator(
            teacher, channels=channels, text_width=networks.text_shape[1], width=networks.head_width
        )
    return _Fake(student=student, teacher=teacher, heads=heads, clips=clips, times=times, text=text)


def _without_data(network: VideoUNet) -> VideoUNet:
    """A copy whose tensors are fake; ``nn.Module.to`` cannot make one of real ones."""
    import copy

    memo = {id(tensor): _like(tensor) for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, memo)


def _like(tensor: Tensor) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty


def _velocity(fake: _Fake) -> Tensor:
    return F.mse_loss(fake.student(fake.clips, fake.times, fake.text), fake.clips)


def _teach(fake: _Fake) -> Tensor:
    return F.mse_loss(fake.teacher(fake.clips, fake.times, fake.text), fake.clips)


def _distil(fake: _Fake) -> Tensor:
    with torch.no_grad():
        wanted, theirs = fake.teacher.forward_with_features(fake.clips, fake.times, fake.text)
    found, mine = fake.student.forward_with_features(fake.clips, fake.times, fake.text)
    loss = F.mse_loss(found, wanted) + F.mse_loss(found, fake.clips)
    pairs = [(one, two) for one, two in zip(mine, theirs, strict=True) if one.shape == two.shape]
    return loss + sum((F.mse_loss(one, two) for one, two in pairs), torch.zeros(()))


def _follow_guided(fake: _Fake) -> Tensor:
    """A guided teacher, then the student: consistency and progressive distillation, and the reconstruction."""
    with torch.no_grad():
        both, times = torch.cat([fake.clips, fake.clips]), torch.cat([fake.times, fake.times])
        fake.teacher(both, times, torch.cat([fake.text, fake.text]))
    return _velocity(fake)


def _judge(fake: _Fake) -> Tensor:
    fake.student.requires_grad_(False)
    _heads(fake).requires_grad_(True)
    with torch.no_grad():
        made = fake.student(fake.clips, fake.times, fake.text)
    scores = [*_score(fake, fake.clips), *_score(fake, made)]
    return torch.stack([F.relu(score).mean() for score in scores]).sum()


def _convince(fake: _Fake) -> Tensor:
    fake.student.requires_grad_(True)
    _heads(fake).requires_grad_(False)
    made = fake.student(fake.clips, fake.times, fake.text)
    scores = _score(fake, made)
    anchor = _velocity(fake)
    return anchor + _follow_guided(fake) - torch.stack([score.mean() for score in scores]).sum()


def _score(fake: _Fake, clips: Tensor) -> list[Tensor]:
    pooled = fake.text.mean(dim=1)
    return cast("list[Tensor]", _heads(fake)(clips, fake.times, fake.text, pooled))


def _heads(fake: _Fake) -> VideoDiscriminator:
    assert fake.heads is not None
    return fake.heads


_PHASES: dict[str, tuple[Callable[[_Fake], Tensor], ...]] = {
    "teacher": (_teach,),
    "distillation": (_distil,),
    "consistency": (_follow_guided,),
    "progressive": (_follow_guided,),
    "trajectory": (_velocity,),
    "adversarial": (_judge, _convince),
}
_TRAINED: dict[str, Callable[[_Fake], Sequence[nn.Module]]] = {
    **dict.fromkeys(_PHASES, lambda fake: [fake.student]),
    "teacher": lambda fake: [fake.teacher],
    "adversarial": lambda fake: [fake.student, _heads(fake)],
}
# The student waits on the GPU for its teacher, the teacher stays where it is later; consistency has a target besides.
_FROZEN: dict[str, Callable[[_Fake], Sequence[nn.Module]]] = {
    **dict.fromkeys(_PHASES, lambda fake: [fake.teacher]),
    "teacher": lambda fake: [fake.student],
    "consistency": lambda fake: [fake.teacher, fake.student],
}


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * _FLOAT for parameter in module.parameters())


def _largest_block(module: nn.Module) -> int:
    return max((_bytes(part) for part in module.modules() if type(part).__name__ in BLOCKS), default=0)
