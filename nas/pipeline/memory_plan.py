"""Memory of every training stage on a GPU, printed, kept beside the training and held against what there is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.core.errors import UnavailableError
from nas.core.schema import to_data
from nas.models.build import build_denoiser
from nas.pipeline.context import TrainChoice, context_of, present
from nas.pipeline.train_choice import chosen_network
from nas.training.memory_plan import StepMemory, StepNetworks, step_memory
from nas.training.recipe import needed_stages

if TYPE_CHECKING:
    from nas.config.train import TrainSection
    from nas.pipeline.choice import Chosen
    from nas.training.options import LoopOptions

_GB = 1e9
_COLUMNS = ("weights", "frozen", "optimizer", "average", "gradients", "activations", "overhead", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What each stage's step needs on one GPU, and the limit; ``otherwise`` is with recomputation switched."""

    network: str
    limit_gb: float
    stages: tuple[StepMemory, ...]
    otherwise: tuple[StepMemory, ...] = ()

    def data(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "network": self.network,
            "limit_gb": self.limit_gb,
            "stages": [_row(step) for step in self.stages],
            "otherwise": [_row(step) for step in self.otherwise],
        }

    def text(self) -> str:
        """Return a table in 10^9 bytes, one line a stage."""
        head = f"{'stage':<14}{'trained':>9}{'batch':>6}" + "".join(f"{name:>12}" for name in _COLUMNS)
        lines = [f"memory of one GPU in GB (10^9 bytes), limit {self.limit_gb:g}; {self.network}", head]
        for steps in (self.stages, self.otherwise):
            if steps:
                lines.append(_settings(steps[0]))
            for step in steps:
                cells = "".join(f"{getattr(step, name) / _GB:>12.2f}" for name in _COLUMNS)
                lines.append(f"{step.stage:<14}{step.parameters / 1e6:>7.0f} M{step.batch_size:>6}{cells}")
        lines.append("computed on tensors without data, overhead assumed; no GPU was measured")
        return "\n".join(lines)

    def require_fits(self) -> None:
        """Check every stage against the limit.

        Raises:
            UnavailableError: One needs more; with what would lower it.
        """
        over = [step for step in self.stages if step.total > self.limit_gb * _GB]
        if over:
            worst = max(over, key=lambda step: step.total)
            needs = "; ".join(f"{step.stage} {step.total / _GB:.1f} GB" for step in over)
            raise UnavailableError(
                f"too little GPU memory: of {self.limit_gb:g} GB a step needs {needs}", hint=self._fix(worst)
            )

    def _fix(self, step: StepMemory) -> str:
        fixes = []
        if not step.gradient_checkpointing:
            fixes.append("train.loop.gradient_checkpointing: true" + self._saving(step))
        if step.batch_size > 1 and step.activations > 0.2 * step.total:
            fixes.append(f"batch_size below {step.batch_size}, with more accumulation for the same step")
        if step.precision == "float32":
            fixes.append("train.loop.precision: bfloat16")
        if step.sharding == "none":
            fixes.append("train.loop.sharding: full on several GPUs (--processes N)")
        else:
            fixes.append(f"more GPUs than {step.processes}")
        return "; or ".join(fixes)

    def _saving(self, step: StepMemory) -> str:
        other = next((one for one in self.otherwise if one.stage == step.stage), None)
        return f" ({other.total / _GB:.1f} GB)" if other else ""


def plan_of_run(run: str, overrides: tuple[str, ...], choice: TrainChoice, *, processes: int) -> MemoryPlan:
    """Return the plan of a YAML or run directory, with recomputation switched too; writes nothing.

    Raises:
        ConfigError: The YAML is faulty, or has no section ``train``.
        InputError: The search that selects the network has not run.
    """
    context = replace(context_of(run, overrides=overrides), train_choice=choice)
    section = present(context.config.train, "train")
    selected = chosen_network(context, choice.architecture or section.architecture)
    return plan(selected, section, limit_gb=section.gpu_memory_gb, processes=processes, only=choice.only, both=True)


def plan(
    selected: Chosen,
    section: TrainSection,
    *,
    limit_gb: float,
    processes: int,
    only: str | None = None,
    both: bool = False,
) -> MemoryPlan:
    """Return what the stages that will run need of each GPU.

    Args:
        selected: The network.
        section: Stages and their options.
        limit_gb: What one GPU has, in 10^9 bytes.
        processes: GPUs.
        only: The one stage that will run.
        both: Count with recomputation switched as well.
    """
    context = selected.context
    backbone, scenario = context.space.backbone, context.scenario
    networks = StepNetworks(
        student=build_denoiser(context.space, selected.architecture, device="meta"),
        teacher=build_denoiser(context.space, context.space.largest(), device="meta"),
        latent_shape=(scenario.frames, backbone.latent_channels, *backbone.latent_size(scenario)),
        text_shape=(backbone.text_tokens, backbone.text_width),
        head_width=section.adversarial.head_width,
    )
    wanted = (only,) if only else section.stages
    names = [name for name in needed_stages(wanted) if name in wanted]
    if section.teacher_from is not None and "teacher" in names:
        names.remove("teacher")
    loops: dict[str, LoopOptions] = {name: getattr(section, name).loop for name in names}
    switched = {
        name: replace(loop, gradient_checkpointing=not loop.gradient_checkpointing) for name, loop in loops.items()
    }
    return MemoryPlan(
        network=f"{context.space.identifier}, student {selected.digest}",
        limit_gb=limit_gb,
        stages=_steps(networks, loops, processes),
        otherwise=_steps(networks, switched, processes) if both else (),
    )


def _steps(networks: StepNetworks, loops: dict[str, LoopOptions], processes: int) -> tuple[StepMemory, ...]:
    return tuple(step_memory(name, networks, loop, processes=processes) for name, loop in loops.items())


def _row(step: StepMemory) -> dict[str, Any]:
    return {**to_data(step), "total": step.total}


def _settings(step: StepMemory) -> str:
    again = "activations computed again" if step.gradient_checkpointing else "activations kept"
    return f"{again}, {step.precision}, {step.processes} GPU, sharding {step.sharding}:"
