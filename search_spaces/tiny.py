"""``tiny/1``: the same network family at toy scale, for the demo, tests and benchmarks."""

from __future__ import annotations

from search_spaces.backbone import BackboneSpec, Level, pruned_unet_stages
from search_spaces.temporal import TemporalSpace


def tiny_backbone() -> BackboneSpec:
    """A two-level UNet of about 0.9 M parameters on 16 x 4 x 4 latents of 32 x 32 px video; all choices are ours.

    Text enters by one transformer on the way down (2 x 2) and one on the way up (4 x 4); more of them would cost
    kernels, which is what a small network on a CPU spends its time on.
    """
    return BackboneSpec(
        name="tiny",
        latent_channels=16,
        latent_downsampling=8,
        text_width=64,
        text_tokens=12,
        max_frames=32,
        norm_groups=8,
        attention_heads=4,
        time_width=128,
        width_multiple=8,
        stages=pruned_unet_stages(
            (
                Level(channels=48, up_blocks=(0,), up_attentions=(0,)),
                Level(channels=80, down_attentions=(0,), up_blocks=(0,)),
            ),
            source_levels=2,
        ),
    )


def tiny() -> TemporalSpace:
    """The toy space: five slots with 23 options each."""
    return TemporalSpace("tiny", 1, tiny_backbone(), width_ratios=(0.5, 1.0), kernels=(3, 5), heads=(2, 4))
