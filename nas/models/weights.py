"""Image weights of an SD v1.5 UNet, or of any UNet of its key layout, into the pruned backbone of a video UNet."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from nas.core.errors import CheckpointError, Problem
from nas.core.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from nas.models.unet import VideoUNet

FILE_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
LDM_PREFIX = "model.diffusion_model."
LDM_BLOCKS_PER_LEVEL = 2  # SD v1.5's unet/config.json: layers_per_block
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightEntry:
    """One tensor: its key in the video UNet (or in the file, when dropped), in the file, and its size."""

    key: str
    source: str
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReport:
    """What a checkpoint gave to a video UNet.

    Attributes:
        file: The file that was read.
        kept: Tensors copied from the file.
        dropped: UNet tensors of the file that the pruned backbone has no place for.
        new: Parameters the file does not have: temporal layers, which start as identities.
    """

    file: str
    kept: tuple[WeightEntry, ...]
    dropped: tuple[WeightEntry, ...]
    new: tuple[WeightEntry, ...]

    @property
    def kept_parameters(self) -> int:
        """Parameters copied from the file."""
        return sum(entry.parameters for entry in self.kept)

    @property
    def dropped_parameters(self) -> int:
        """Parameters of the file that were not used."""
        return sum(entry.parameters for entry in self.dropped)

    @property
    def new_parameters(self) -> int:
        """Parameters that keep their fresh values."""
        return sum(entry.parameters for entry in self.new)


def find_unet_file(path: Path) -> Path:
    """Return the safetensors file of a UNet: the file itself, or inside a diffusers folder or its ``unet`` folder.

    Raises:
        CheckpointError: There is none; pickled files are not read.
    """
    if path.is_file():
        if path.suffix != ".safetensors":
            raise CheckpointError(
                f"{path}: only .safetensors files are read, because pickled ones can run code",
                hint="save the model again with safe_serialization=True",
            )
        return path
    if not path.exists():
        raise CheckpointError(f"{path}: does not exist")
    for folder in (path / "unet", path):
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    raise CheckpointError(
        f"{path}: holds none of {', '.join(FILE_NAMES)}, neither in itself nor in its folder unet",
        hint="give a diffusers folder saved with safe_serialization=True, or one .safetensors file",
    )


def load_image_weights(model: VideoUNet, path: Path) -> WeightReport:
    """Copy the spatial weights of an SD v1.5 UNet into the backbone of ``model``; temporal layers stay as they are.

    The layouts of diffusers and of the original release (``model.diffusion_model.``) are read, and networks that were
    pruned here, whose folder says which block of the source each of theirs is. Nothing is copied unless all fits.

    Args:
        model: Video UNet; its backbone names the source of every module.
        path: Diffusers folder, its ``unet`` folder, or a single ``.safetensors`` file.

    Raises:
        CheckpointError: No such file, a damaged file, another key layout, missing keys or wrong shapes; all keys are
            named in ``problems``.
    """
    file = find_unet_file(path)
    try:
        with safe_open(file, framework="pt") as tensors:
            return _copy(model, file, tensors, pruned=_pruned_names(file))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file}: cannot be read as safetensors: {error}", hint="the file is damaged; fetch it again"
        ) from error


def source_keys(model: VideoUNet) -> dict[str, str]:
    """Key in the unpruned UNet (diffusers layout) of every spatial parameter of a video UNet."""
    prefixes = dict(_source_modules(model))
    keys = {}
    for key, _ in model.named_parameters():
        if key.startswith("temporal_layers."):
            continue
        ours = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
        keys[key] = key if ours is None else prefixes[ours] + key[len(ours) :]
    return keys


def _source_modules(model: VideoUNet) -> Iterator[tuple[str, str]]:
    for stage in model.spec.stages:
        number = stage.name.removeprefix("down").removeprefix("up")
        if stage.name == "mid":
            ours = "mid_block"
        else:
            ours = f"{'down' if stage.name.startswith('down') else 'up'}_blocks.{number}"
        for index, block in enumerate(stage.blocks):
            yield f"{ours}.resnets.{index}.", f"{block.source}."
            if block.attention:
                yield f"{ours}.attentions.{index}.", f"{block.attention_source}."
        if stage.resample != "none":
            yield f"{ours}.{stage.resample}samplers.0.", f"{stage.resample_source}."


def _pruned_names(file: Path) -> dict[str, str] | None:
    """Key in the unpruned UNet → key in the file, of a network that was saved by us; None for any other."""
    config = file.with_name("config.json")
    if not config.is_file():
        return None
    data = read_json(config)
    if not isinstance(data, dict) or data.get("_class_name") != "VideoUNet":
        return None
    from nas.models.unet import VideoUNet

    with torch.device("meta"):
        saved = VideoUNet(**{name: data[name] for name in ("space", "choices", "backbone")})
    return {source: key for key, source in source_keys(saved).items()}


def _copy(model: VideoUNet, file: Path, tensors: Any, *, pruned: Mapping[str, str] | None) -> WeightReport:
    names = pruned if pruned is not None else _diffusers_names(file, list(tensors.keys()))
    shapes = {key: tuple(tensors.get_slice(name).get_shape()) for key, name in names.items()}
    parameters = dict(model.named_parameters())
    wanted = source_keys(model)
    _check(file, {source: tuple(parameters[key].shape) for key, source in wanted.items()}, shapes)
    with torch.no_grad():
        for key, source in wanted.items():
            parameters[key].copy_(tensors.get_tensor(names[source]))
    used = set(wanted.values())
    return WeightReport(
        file=str(file),
        kept=tuple(
            WeightEntry(key=key, source=names[source], parameters=prod(shapes[source]))
            for key, source in wanted.items()
        ),
        dropped=tuple(
            WeightEntry(key=key, source=names[key], parameters=prod(shape))
            for key, shape in shapes.items()
            if key not in used
        ),
        new=tuple(
            WeightEntry(key=key, source="", parameters=parameter.numel())
            for key, parameter in parameters.items()
            if key not in wanted
        ),
    )


def _diffusers_names(file: Path, keys: list[str]) -> dict[str, str]:
    """Key in the diffusers layout → key in the file, for the UNet's tensors."""
    if "conv_in.weight" in keys:
        return {key: key for key in keys}
    prefix = next((item for item in (LDM_PREFIX, "") if f"{item}input_blocks.0.0.weight" in keys), None)
    if prefix is None:
        raise CheckpointError(
            f"{file}: keys are of neither the diffusers UNet layout (conv_in.weight, down_blocks.0…) nor the original "
            f"one ({LDM_PREFIX}input_blocks.0…); it begins with {', '.join(sorted(keys)[:SHOWN])}",
            hint="give the UNet of a Stable Diffusion v1.5 model",
        )
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    # The converter only moves values from key to key, so keys stand for the tensors and nothing is read yet.
    stand_ins = {LDM_PREFIX + key[len(prefix) :]: key for key in keys if key.startswith(prefix)}
    return dict(convert_ldm_unet_checkpoint(stand_ins, {"layers_per_block": LDM_BLOCKS_PER_LEVEL}))


def _check(file: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    problems = [
        Problem(path=key, message="is missing" if key not in found else f"has shape {found[key]}, needs {shape}")
        for key, shape in wanted.items()
        if found.get(key) != shape
    ]
    if problems:
        shown = "; ".join(f"{problem.path} {problem.message}" for problem in problems[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"{file}: {len(problems)} of {len(wanted)} tensors do not fit the backbone: {shown}{more}",
            hint="the backbone takes the shapes of the network it was pruned from",
            problems=tuple(problems),
        )
