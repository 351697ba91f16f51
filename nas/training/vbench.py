"""Videos for VBench (arXiv 2311.17982), and its own scores where the package is installed.

VBench finds a prompt's videos by name, ``<prompt>-<index>.mp4``. Its standard mode wants every prompt of its suite;
``custom_input`` takes any prompt, for the dimensions that need no knowledge of the suite.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.errors import ConfigError, InputError, UnavailableError
from nas.core.files import read_json, write_json
from nas.core.schema import with_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

# VBench's README, "Evaluate Your Own Videos" (2025-03).
CUSTOM_DIMENSIONS: tuple[str, ...] = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
# The same page: the complete list.
DIMENSIONS: tuple[str, ...] = (
    *CUSTOM_DIMENSIONS,
    "temporal_flickering",
    "object_class",
    "multiple_objects",
    "human_action",
    "color",
    "spatial_relationship",
    "scene",
    "temporal_style",
    "appearance_style",
    "overall_consistency",
)
VIDEOS = "videos"
SCORES = "vbench.json"
_NAME = "model"
# A file name holds 255 bytes on every common file system; the index and the ending need some.
_LONGEST_PROMPT = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSuite:
    """Prompts, and VBench's own file of its suite where they come from it."""

    prompts: tuple[str, ...]
    standard: Path | None = None


def require_vbench() -> None:
    """Check that VBench can be imported.

    Raises:
        UnavailableError: It cannot; the hint says how to get it, or how to go without.
    """
    if find_spec("vbench") is None:
        raise UnavailableError(
            "VBench is not installed here",
            hint="pip install vbench, or add --videos-only and evaluate the folder of videos where VBench is",
        )


def read_prompts(path: Path, *, dimensions: Sequence[str]) -> PromptSuite:
    """Prompts of a text file, one a line, or of VBench's ``VBench_full_info.json`` for ``dimensions``.

    Raises:
        InputError: The file is missing, empty or of another form.
    """
    if path.suffix != ".json":
        if not path.is_file():
            raise InputError(f"{path}: no such file of prompts")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        return PromptSuite(prompts=_checked(path, [line for line in lines if line]))
    rows = read_json(path)
    known = isinstance(rows, list) and all(
        isinstance(row, dict) and {"prompt_en", "dimension"} <= set(row) for row in rows
    )
    if not known:
        raise InputError(f"{path}: needs a list of objects with prompt_en and dimension, as VBench_full_info.json")
    wanted = [row["prompt_en"] for row in rows if set(dimensions) & set(row["dimension"])]
    return PromptSuite(prompts=_checked(path, wanted), standard=path)


def check_dimensions(dimensions: Sequence[str], *, standard: bool) -> None:
    """Check that VBench has these dimensions for its own suite or for other prompts.

    Raises:
        ConfigError: One is unknown, or needs VBench's own prompts.
    """
    unknown = [name for name in dimensions if name not in DIMENSIONS]
    if unknown:
        raise ConfigError(f"unknown VBench dimension {', '.join(unknown)}; known are {', '.join(DIMENSIONS)}")
    suite_only = [name for name in dimensions if name not in CUSTOM_DIMENSIONS]
    if suite_only and not standard:
        raise ConfigError(
            f"VBench judges {', '.join(suite_only)} on its own prompts only",
            hint="give its VBench_full_info.json as --prompts, or choose of " + ", ".join(CUSTOM_DIMENSIONS),
        )


def video_path(folder: Path, prompt: str, index: int) -> Path:
    """Where VBench looks for a video."""
    return folder / VIDEOS / f"{prompt}-{index}.mp4"


def score_videos(folder: Path, suite: PromptSuite, *, dimensions: Sequence[str], device: str) -> dict[str, float]:
    """Let VBench judge ``folder / videos``; writes ``vbench.json`` beside VBench's own files.

    Returns:
        The score of each dimension.

    Raises:
        UnavailableError: VBench is not installed or fails to start.
        InputError: It wrote no scores.
    """
    require_vbench()
    try:
        from vbench import VBench
    except ImportError as error:
        raise UnavailableError(
            f"VBench cannot be imported: {error}", hint="see its README for what it needs"
        ) from error
    results = folder / "vbench"
    judge = VBench(device, str(suite.standard or ""), str(results))
    with contextlib.redirect_stdout(sys.stderr):  # it prints, and stdout belongs to --json
        judge.evaluate(
            videos_path=str(folder / VIDEOS),
            name=_NAME,
            dimension_list=list(dimensions),
            mode="vbench_standard" if suite.standard else "custom_input",
        )
    path = results / f"{_NAME}_eval_results.json"
    found = read_json(path)
    try:
        scores = {name: float(found[name][0]) for name in dimensions}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: VBench wrote no score for every dimension: {error}") from error
    write_json(folder / SCORES, with_schema("vbench", 1, _facts(suite, scores)))
    return scores


def _facts(suite: PromptSuite, scores: dict[str, float]) -> dict[str, Any]:
    try:
        version = metadata.version("vbench")
    except metadata.PackageNotFoundError:
        version = "unknown"
    mode = "vbench_standard" if suite.standard else "custom_input"
    return {"vbench": version, "mode": mode, "prompts": list(suite.prompts), "scores": scores}


def _checked(path: Path, prompts: list[str]) -> tuple[str, ...]:
    unique = tuple(dict.fromkeys(prompts))
    if not unique:
        raise InputError(f"{path}: holds no prompt")
    for prompt in unique:
        if "/" in prompt or "\0" in prompt or len(prompt.encode()) > _LONGEST_PROMPT:
            raise InputError(
                f"{path}: prompt {prompt[:60]!r} cannot name a video file",
                hint=f"VBench names videos by their prompts: no slash, at most {_LONGEST_PROMPT} bytes",
            )
    return unique
