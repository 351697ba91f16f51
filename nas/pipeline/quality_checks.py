"""What the levels of quality and the warm start of a run's YAML must keep beyond their schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.config.run import RunConfig

# Engines whose candidates may wait at a level: the others need the quality of what they proposed.
ENGINES_FOR_LEVELS = ("exhaustive", "model_based", "random", "regularised")

_TRAINED = ("removal_sensitivity", "short_training", "supernet")


def trained_estimators(config: RunConfig) -> tuple[str, ...]:
    """Return the estimators that train on the toy space's clips, as a message names them."""
    quality = config.quality
    levels = quality.levels if quality.type == "levels" else (quality,)
    trained = [
        f"proxy {level.name!r}" if level.type == "proxy" else f"quality {level.type!r}"
        for level in levels
        if level.type in _TRAINED or (level.type == "proxy" and level.name in ("grad_norm", "feature_alignment"))
    ]
    return tuple(sorted(trained))


def quality_faults(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield path and message of every fault."""
    search = config.search
    if search is None:
        return
    if config.quality.type == "levels" and search.engine.type not in ENGINES_FOR_LEVELS:
        yield (
            "search.engine",
            f"several levels of quality go with {', '.join(ENGINES_FOR_LEVELS)}, got {search.engine.type!r}",
        )
    for name in search.warm_start:
        path = Path(name)
        if not path.exists():
            yield "search.warm_start", f"does not exist, got {name!r}"
        elif path.is_dir() and not (path / "search" / "evaluations.jsonl").is_file():
            yield "search.warm_start", f"is no run with a search: {name}/search/evaluations.jsonl is missing"
