"""``snapgen_v/1``: temporal layers for a pruned SD v1.5 UNet, at full size."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from search_spaces.plan import PruningPlan, parse_plan
from search_spaces.temporal import TemporalSpace

if TYPE_CHECKING:
    from search_spaces.backbone import BackboneSpec

NAME = "snapgen_v"


@cache
def snapgen_v_plan() -> PruningPlan:
    """The default pruning of SD v1.5, ``presets/sd15_pruned.yaml``: 347 M parameters, 2.5x fewer than the 860 M.

    Published (SnapGen-V, arXiv:2412.10494): the backbone is SD v1.5's UNet pruned 2.5x; six temporal operators.
    The layout after pruning is not published. Ours, so that every kept weight keeps its shape:

    - The innermost level (8 x 8 latents) is dropped whole and the middle is one ResNet block.
    - No attention at 320 channels, as SnapFusion (arXiv:2306.00980) found best for latency.
    - One ResNet block per down stage (SD index 0), two per up stage (indices 0 and 2: the one that takes the deeper
      stage and the one that takes the level's input), each with its transformer at 640 and 1280 channels.
    - Latents are 4 x 64 x 64 for 512 x 512 px (SD v1.5's VAE); text is CLIP ViT-L's 77 tokens of width 768.

    The number of latent frames is a scenario value and unpublished too. Our default is 16: with 4x temporal
    compression, which the published 1:192 implies at 8 x 8 pixels and 4 channels per latent cell, that is 61 to 64
    video frames, about the published 5 s at 12 frames/s.
    """
    name = "sd15_pruned.yaml"
    text = files("search_spaces").joinpath("presets", name).read_text(encoding="utf-8")
    return parse_plan(text, where=f"presets/{name}")


def snapgen_v_backbone(plan: PruningPlan | None = None) -> BackboneSpec:
    """The network of a plan, the default one without."""
    return (plan or snapgen_v_plan()).backbone()


def snapgen_v(plan: PruningPlan | None = None) -> TemporalSpace:
    """The full-size space: with the default plan ten slots with 67 options each, up to two equal layers in a slot.

    Width ratios, kernel sizes, heads and depths are ours; the paper names the operators but not their inside, and says
    that position and number of layers are searched. With depth 1 alone the largest network would have 573 M
    parameters, below the published 0.6 B.

    Another plan gives another space: its name carries the digest of its backbone (``snapgen_v-0123456789abcdef/1``), so
    that no architecture or journal of the one is taken for one of the other.
    """
    default = snapgen_v_plan()
    digest = (plan or default).digest
    return TemporalSpace(
        NAME if digest == default.digest else f"{NAME}-{digest}",
        1,
        snapgen_v_backbone(plan),
        width_ratios=(0.25, 0.5, 1.0),
        kernels=(3, 5),
        heads=(4, 8),
        depths=(1, 2),
    )
