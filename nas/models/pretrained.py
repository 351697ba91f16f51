"""Local pretrained encoders in diffusers' folder layout: a VAE, and a CLIP text model with its tokenizer.

diffusers and transformers are imported inside the functions: only who names such a folder needs them. Nothing is
downloaded and nothing but safetensors is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas.core.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

FRAME_DECODERS = ("AutoencoderKL", "AutoencoderTiny")


def load_vae(folder: Path) -> Any:
    """A diffusers ``AutoencoderKL``, frozen, in eval mode.

    Raises:
        InputError: The folder is no such VAE, is damaged, or scales its latents in a way not known here.
    """
    from diffusers import AutoencoderKL

    _require_config(folder, "AutoencoderKL", key="_class_name")
    try:
        vae = AutoencoderKL.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{folder}: cannot be read as a VAE: {error}") from error
    if vae.config.latents_mean is not None:
        raise InputError(f"{folder}: its latents have a mean and spread for each channel, which is not supported")
    return vae.eval().requires_grad_(False)


def load_frame_decoder(folder: Path) -> Any:
    """A diffusers ``AutoencoderKL`` or ``AutoencoderTiny`` to decode with, frozen, in eval mode.

    Raises:
        InputError: The folder is neither, is damaged, or scales its latents in a way not known here.
    """
    from diffusers import AutoencoderTiny

    if _require_config(folder, *FRAME_DECODERS, key="_class_name") == "AutoencoderKL":
        return load_vae(folder)
    try:
        decoder = AutoencoderTiny.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{folder}: cannot be read as a VAE: {error}") from error
    return decoder.eval().requires_grad_(False)


def load_clip_text(tokenizer_folder: Path, text_folder: Path) -> tuple[Any, Any]:
    """A ``CLIPTokenizer`` and a ``CLIPTextModel``, frozen, in eval mode.

    Raises:
        InputError: A folder holds something else or is damaged.
        UnavailableError: transformers is not installed.
    """
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise UnavailableError(
            f"{text_folder}: a CLIP text encoder needs transformers, which is not installed",
            hint="pip install 'mobile-video-nas[text]'",
        ) from error
    _require_config(text_folder, "CLIPTextModel", key="architectures")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
        text_model = CLIPTextModel.from_pretrained(text_folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{text_folder}: cannot be read as a CLIP text encoder: {error}") from error
    return tokenizer, text_model.eval().requires_grad_(False)


def _require_config(folder: Path, *names: str, key: str) -> str:
    from nas.core.files import read_json

    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{path}: does not exist; needed is a folder as diffusers saves a {' or '.join(names)}")
    found = read_json(path).get(key)
    fitting = [name for name in names if name in (found if isinstance(found, list) else [found])]
    if not fitting:
        raise InputError(f"{path}: {key} is {found!r}, needed is {' or '.join(map(repr, names))}")
    return fitting[0]
