"""Whether networks fit together and weights fit a network, said before the first step with what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.errors import CheckpointError, ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from search_spaces.backbone import BackboneSpec

_SHOWN = 4
_FIELDS = (
    ("latent_channels", "latents have {} channels", "train the teacher on the latents of the student's codec or VAE"),
    ("latent_downsampling", "a latent cell is {} px wide", "both need the same codec or VAE"),
    ("text_width", "text tokens are {} wide", "both need the same text encoder"),
)


def require_same_world(student: nn.Module, teacher: nn.Module, *, latent_shape: Sequence[int] | None = None) -> None:
    """Check that a teacher can teach a student: the same latents and the same text; widths and depth may differ.

    Networks without a ``BackboneSpec`` are not checked.

    Args:
        student: Network to train.
        teacher: Frozen network.
        latent_shape: (T, C, H, W) of the clips, where known.

    Raises:
        ConfigError: With every difference and what to do.
    """
    specs = [getattr(module, "spec", None) for module in (student, teacher)]
    if specs[0] is None or specs[1] is None:
        return
    problems = [*_differences(specs[0], specs[1])]
    if latent_shape is not None:
        problems += [*_unfit_clips("student", specs[0], latent_shape), *_unfit_clips("teacher", specs[1], latent_shape)]
    if problems:
        raise ConfigError(
            f"teacher {specs[1].name!r} cannot teach student {specs[0].name!r}: "
            + "; ".join(problem.message for problem in problems),
            hint="give a teacher of the same latents and text encoder, of any width and depth",
            problems=tuple(problems),
        )


def require_weights_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, what: str) -> None:
    """Check names and shapes of stored weights against those of a network.

    Raises:
        CheckpointError: With what is missing, unknown or of another shape.
    """
    needed = {name: tuple(value.shape) for name, value in wanted.items()}
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    lists = {
        "missing": sorted(set(needed) - set(shapes)),
        "unknown": sorted(set(shapes) - set(needed)),
        "of another shape": [
            f"{name} {shapes[name]}, needs {needed[name]}"
            for name in sorted(set(needed) & set(shapes))
            if shapes[name] != needed[name]
        ],
    }
    parts = [
        f"{len(names)} {kind} ({'; '.join(names[:_SHOWN])}{'; …' if len(names) > _SHOWN else ''})"
        for kind, names in lists.items()
        if names
    ]
    if parts:
        raise CheckpointError(
            f"{what}: weights of another architecture: {', '.join(parts)}",
            hint="give the checkpoint of this very network, or start a new folder to train it afresh",
        )


def _differences(student: BackboneSpec, teacher: BackboneSpec) -> list[Problem]:
    found = []
    for name, text, fix in _FIELDS:
        mine, theirs = getattr(student, name), getattr(teacher, name)
        if mine != theirs:
            message = f"the student's {text.format(mine)}, the teacher's {theirs} ({fix})"
            found.append(Problem(path=f"backbone.{name}", message=message))
    return found


def _unfit_clips(who: str, spec: BackboneSpec, latent_shape: Sequence[int]) -> list[Problem]:
    frames, channels = latent_shape[0], latent_shape[1]
    found = []
    if channels != spec.latent_channels:
        message = f"the clips' latents have {channels} channels, the {who} takes {spec.latent_channels}"
        found.append(Problem(path="backbone.latent_channels", message=message))
    if frames > spec.max_frames:
        message = f"the clips have {frames} latent frames, the {who} has positions for {spec.max_frames}"
        found.append(Problem(path="backbone.max_frames", message=message))
    return found
