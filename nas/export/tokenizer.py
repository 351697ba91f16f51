"""Tokenizers beside the packages: a CLIP tokenizer's own files, or the toy task's list of words.

transformers is imported inside a function: only a CLIP tokenizer needs it.
"""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

from nas.core.errors import InputError, UnavailableError
from nas.core.files import read_json, write_json
from nas.core.schema import check_schema, with_schema
from nas.models.caption import PADDING, WordTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    # Captions to ids (B, N).
    Tokenizer = Callable[[Sequence[str]], Tensor]

WORDS_FILE = "words.json"
# What `CLIPTokenizer.save_pretrained` of transformers 4 and 5 writes; older folders have the first two and no third.
CLIP_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def copy_clip_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files of a CLIP tokenizer and nothing else."""
    folder.mkdir(parents=True)
    for name in CLIP_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def write_words(vocabulary: Sequence[str], folder: Path) -> None:
    """Write the words of a caption encoder: word ``i`` of the list has the id ``i + 1``, 0 is padding."""
    body = {"vocabulary": list(vocabulary), "padding": PADDING}
    write_json(folder / WORDS_FILE, with_schema("words", 1, body))


def read_tokenizer(folder: Path, *, num_tokens: int) -> Tokenizer:
    """Read either, for a text encoder that takes ``num_tokens`` ids.

    Raises:
        InputError: The folder holds neither, or a file is damaged.
        UnavailableError: A CLIP tokenizer, and transformers is not installed.
    """
    file = folder / WORDS_FILE
    if file.is_file():
        body = check_schema(read_json(file), "words", 1, where=str(file))
        try:
            return WordTokenizer(vocabulary=body["vocabulary"], num_tokens=num_tokens)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: not a list of words: {error}") from error
    try:
        from transformers import CLIPTokenizer
    except ImportError as error:
        raise UnavailableError(
            f"{folder}: a CLIP tokenizer needs transformers, which is not installed",
            hint="pip install 'mobile-video-nas[text]'",
        ) from error
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: cannot be read as a CLIP tokenizer: {error}") from error
    return partial(clip_ids, tokenizer, num_tokens=num_tokens)


def clip_ids(tokenizer: Any, captions: Sequence[str], *, num_tokens: int) -> Tensor:
    """Return ids (B, N) of captions, cut and padded to the ``num_tokens`` that the text model has places for."""
    ids: Tensor = tokenizer(
        list(captions), padding="max_length", truncation=True, max_length=num_tokens, return_tensors="pt"
    ).input_ids
    return ids
