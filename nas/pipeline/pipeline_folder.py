"""A local diffusers folder held against a search space's network before anything is read or converted; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas.core.errors import InputError, Problem
from nas.core.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from search_spaces.backbone import BackboneSpec

PARTS = ("text_encoder", "tokenizer", "vae")
DECODERS = ("AutoencoderKL", "AutoencoderTiny")


def folder_faults(folder: Path, backbone: BackboneSpec) -> list[str]:
    """Return what keeps a folder from being the text encoder, tokenizer and VAE of a network, all at once."""
    if not folder.is_dir():
        return [f"{folder}: is no folder; needed is one as diffusers saves a pipeline, with {', '.join(PARTS)}"]
    missing = [name for name in PARTS if not (folder / name).is_dir()]
    faults = [f"{folder}: has no {', '.join(missing)}; needed are {', '.join(PARTS)}"] if missing else []
    if "text_encoder" not in missing:
        faults += _text_faults(folder / "text_encoder", backbone)
    if "tokenizer" not in missing:
        faults += _tokenizer_faults(folder / "tokenizer")
    if "vae" not in missing:
        faults += _vae_faults(folder / "vae", backbone)
    return faults


def require_folder(folder: Path, backbone: BackboneSpec) -> None:
    """Let a folder pass that has no faults.

    Raises:
        InputError: It has some; all are named.
    """
    faults = folder_faults(folder, backbone)
    if faults:
        raise InputError(
            "; ".join(faults),
            hint="nothing was converted; name a folder that fits the network, or leave export.pipeline out",
            problems=tuple(Problem(message=fault, path="export.pipeline") for fault in faults),
        )


def _text_faults(part: Path, backbone: BackboneSpec) -> Iterator[str]:
    try:
        config = _config(part)
    except InputError as error:
        yield error.message
        return
    named = config.get("architectures") or []
    if "CLIPTextModel" not in named:
        yield f"{part / 'config.json'}: architectures is {named!r}, needed is 'CLIPTextModel'"
        return
    yield from _weight_faults(part, "model")
    for key, wanted in (("hidden_size", backbone.text_width), ("max_position_embeddings", backbone.text_tokens)):
        if config.get(key) != wanted:
            what = "wide" if key == "hidden_size" else "long"
            yield (
                f"{part / 'config.json'}: {key} is {config.get(key)!r}, "
                f"the text that {backbone.name} takes is {wanted} {what}"
            )


def _tokenizer_faults(part: Path) -> Iterator[str]:
    if not (part / "tokenizer.json").is_file() and not all(
        (part / name).is_file() for name in ("vocab.json", "merges.txt")
    ):
        yield f"{part}: has neither tokenizer.json nor vocab.json with merges.txt"


def _vae_faults(part: Path, backbone: BackboneSpec) -> Iterator[str]:
    try:
        config = _config(part)
    except InputError as error:
        yield error.message
        return
    name = config.get("_class_name")
    if name not in DECODERS:
        yield f"{part / 'config.json'}: _class_name is {name!r}, needed is {' or '.join(map(repr, DECODERS))}"
        return
    yield from _weight_faults(part, "diffusion_pytorch_model")
    if config.get("latents_mean") is not None:
        yield f"{part / 'config.json'}: latents have a mean and spread for each channel, which is not supported"
    channels = config.get("latent_channels", 4)  # diffusers' default of both
    if channels != backbone.latent_channels:
        yield (
            f"{part / 'config.json'}: latent_channels is {channels!r}, "
            f"the latents of {backbone.name} have {backbone.latent_channels}"
        )
    levels = config.get("decoder_block_out_channels" if name == "AutoencoderTiny" else "block_out_channels") or [0]
    cell = int(config.get("upsampling_scaling_factor", 2)) ** (len(levels) - 1)
    if cell != backbone.latent_downsampling:
        yield (
            f"{part / 'config.json'}: {len(levels)} levels make {cell} px of a latent cell, "
            f"a cell of {backbone.name} is {backbone.latent_downsampling} px"
        )


def _config(part: Path) -> dict[str, Any]:
    path = part / "config.json"
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no settings, a {type(found).__name__}")
    return found


def _weight_faults(part: Path, stem: str) -> Iterator[str]:
    if (part / f"{stem}.safetensors").is_file() or (part / f"{stem}.safetensors.index.json").is_file():
        return
    pickled = sorted(path.name for path in part.glob("*.bin"))
    found = f"only {', '.join(pickled)}, which is pickled and not read" if pickled else "none"
    yield f"{part}: needs {stem}.safetensors, there is {found}; save_pretrained(safe_serialization=True) writes it"
