"""A space of temporal layers in the slots of a backbone; the one class behind every space of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.architecture import Architecture, ChoiceSpec, ChoiceValue
from search_spaces.categorical import CategoricalSpace
from search_spaces.layers import ATTENTIONS, TEMPORAL_KINDS, block_inputs, temporal_depth, temporal_spec, write_block
from search_spaces.workload import build_workload, slot_setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nas.core.scenario import Scenario
    from nas.core.workload import Workload
    from search_spaces.backbone import BackboneSpec


class TemporalSpace:
    """Temporal layers for a backbone: per slot a kind, and where it applies width ratio, kernel size, heads, depth.

    Meets ``nas.core.protocols.SearchSpace``.

    Args:
        name: Name of the space.
        version: Version of its choices.
        backbone: The image network and its slots.
        width_ratios: Inner width over channels, for every kind but ``none``.
        kernels: Kernel sizes of ``conv1d``, in frames; ``conv3d`` always has 3.
        heads: Numbers of attention heads.
        depths: Numbers of equal layers in a row; with a single value there is no such choice.
    """

    def __init__(
        self,
        name: str,
        version: int,
        backbone: BackboneSpec,
        *,
        width_ratios: tuple[float, ...],
        kernels: tuple[int, ...],
        heads: tuple[int, ...],
        depths: tuple[int, ...] = (1,),
    ) -> None:
        self.name = name
        self.version = version
        self.backbone = backbone
        self._categorical = CategoricalSpace(
            name,
            version,
            {slot: _slot_choices(slot, width_ratios, kernels, heads, depths) for slot in backbone.slots},
        )

    @property
    def identifier(self) -> str:
        """Name and version: ``tiny/1``."""
        return self._categorical.identifier

    def choices(self) -> tuple[ChoiceSpec, ...]:
        """Every choice, in the order of the index vector."""
        return self._categorical.choices()

    def slots(self) -> tuple[str, ...]:
        """Names of the temporal slots in execution order."""
        return self._categorical.slots()

    def options(self, slot: str) -> tuple[Mapping[str, ChoiceValue], ...]:
        """Distinct canonical settings of one slot; keys are full choice names. The first is kind ``none``."""
        return self._categorical.options(slot)

    def count(self) -> int:
        """Exact number of distinct architectures."""
        return self._categorical.count()

    def encode(self, architecture: Architecture) -> tuple[int, ...]:
        """Index vector over ``choices()``; inactive choices are 0."""
        return self._categorical.encode(architecture)

    def decode(self, indices: Sequence[int]) -> Architecture:
        """Architecture of an index vector, inactive positions dropped."""
        return self._categorical.decode(indices)

    def from_options(self, options: Sequence[int]) -> Architecture:
        """Architecture with option ``options[i]`` in slot ``slots()[i]``."""
        return self._categorical.from_options(options)

    def to_options(self, architecture: Architecture) -> tuple[int, ...]:
        """Option index per slot; the inverse of ``from_options``."""
        return self._categorical.to_options(architecture)

    def validate(self, architecture: Architecture) -> None:
        """Raise ``ArchitectureError`` naming every fault, or return."""
        self._categorical.validate(architecture)

    def workload(self, architecture: Architecture, scenario: Scenario) -> Workload:
        """What the architecture computes in one denoiser call for one clip.

        Raises:
            ArchitectureError: The architecture is not of this space.
            ConfigError: The scenario's size or frames do not fit the backbone.
        """
        self.validate(architecture)
        return build_workload(self.backbone, architecture, scenario)

    def smallest(self) -> Architecture:
        """The backbone alone: no temporal layer anywhere."""
        return self.from_options([0] * len(self.slots()))

    def largest(self) -> Architecture:
        """The option with the most parameters in every slot; the later one where two are equal."""
        return self.from_options([self._heaviest(slot) for slot in self.slots()])

    def _heaviest(self, slot: str) -> int:
        channels = self.backbone.slot_channels(slot)
        sizes = [_parameters(self.backbone, slot, option, channels) for option in self.options(slot)]
        return max(range(len(sizes)), key=lambda index: (sizes[index], index))


def _parameters(backbone: BackboneSpec, slot: str, option: Mapping[str, ChoiceValue], channels: int) -> int:
    setting = slot_setting(option, slot)
    spec = temporal_spec(backbone, setting, channels=channels, frames=1, height=1, width=1)
    if spec is None:
        return 0
    operations, _ = write_block("layer", spec, {port: port for port in block_inputs(spec)}, 1)
    return temporal_depth(setting) * sum(operation.parameters for operation in operations)


def _slot_choices(
    slot: str,
    width_ratios: tuple[float, ...],
    kernels: tuple[int, ...],
    heads: tuple[int, ...],
    depths: tuple[int, ...],
) -> tuple[ChoiceSpec, ...]:
    kind = f"{slot}.kind"
    present = tuple(name for name in TEMPORAL_KINDS if name != "none")
    depth = ChoiceSpec(name=f"{slot}.depth", values=depths, active_when=((kind, present),))
    return (
        ChoiceSpec(name=kind, values=TEMPORAL_KINDS),
        ChoiceSpec(name=f"{slot}.width_ratio", values=width_ratios, active_when=((kind, present),)),
        ChoiceSpec(name=f"{slot}.kernel", values=kernels, active_when=((kind, ("conv1d",)),)),
        ChoiceSpec(name=f"{slot}.heads", values=heads, active_when=((kind, ATTENTIONS),)),
        *((depth,) if len(depths) > 1 else ()),
    )
