"""What the ``train`` section must keep beyond its schema: data that fit, files that exist, a network to train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.training.options import MAIN_STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.config.run import RunConfig

Fault = tuple[str, str]  # path of the key, message


def train_faults(config: RunConfig) -> Iterator[Fault]:
    """Yield every fault of ``train``: path of the key and message."""
    section = config.train
    if section is None:
        return
    # A full-size run may name this stage for a machine with a GPU, and go on without it elsewhere.
    if section.data.type == "procedural" and config.space.name != "tiny" and not section.needs_gpu:
        yield (
            "train.data",
            f"procedural clips are 32 x 32 px, which fit space 'tiny', not {config.space.name!r}; "
            "write {type: shards, path: DIR} with latents of your own clips, from `nas data encode`",
        )
    for name in ("teacher_from", "image_weights"):
        given = getattr(section, name)
        if given is not None and not Path(given).exists():
            yield f"train.{name}", f"does not exist, got {given!r}"
    if not section.stages:
        yield "train.stages", f"names no stage; the whole recipe is {', '.join(MAIN_STAGES)}"
