"""Image UNets that can be pruned, by name."""

from __future__ import annotations

from difflib import get_close_matches

from nas.core.errors import ConfigError
from search_spaces.pruning import SourceUNet

# unet/config.json of runwayml/stable-diffusion-v1-5; the last field is for temporal layers, ours.
SD15_SOURCE = SourceUNet(
    name="sd15_unet",
    channels=(320, 640, 1280, 1280),
    attention_levels=(0, 1, 2),
    latent_channels=4,
    latent_downsampling=8,
    text_width=768,
    text_tokens=77,
    norm_groups=32,
    attention_heads=8,
    time_width=1280,
    width_multiple=16,
)

# A toy of the same kind on the 16 x 4 x 4 latents of the project's clips: 3.6 M parameters; all of it ours.
TOY_SOURCE = SourceUNet(
    name="toy_image",
    channels=(48, 80, 80),
    attention_levels=(0, 1),
    latent_channels=16,
    latent_downsampling=8,
    text_width=64,
    text_tokens=12,
    norm_groups=8,
    attention_heads=4,
    time_width=128,
    width_multiple=8,
    max_frames=32,
)

SOURCES: dict[str, SourceUNet] = {"sd15": SD15_SOURCE, "toy_image": TOY_SOURCE}


def get_source(name: str) -> SourceUNet:
    """Return the network of a name.

    Raises:
        ConfigError: The name is unknown; known ones and the nearest are listed.
    """
    if name not in SOURCES:
        near = get_close_matches(name, SOURCES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown network to prune {name!r}; known are {', '.join(sorted(SOURCES))}{hint}")
    return SOURCES[name]
