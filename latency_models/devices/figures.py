"""A number of a device file with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal

FigureKind = Literal["measured", "published", "estimate"]

# How far off, as a ratio either way, one standard deviation of a figure is taken to be where the file says nothing:
# our judgement. Fitted rates (latency_models.rates) start from it, so a few measurements can outweigh it.
_USUAL_SPREAD = {"measured": 1.25, "published": 1.5, "estimate": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number with where it comes from.

    ``kind`` is ``measured`` (by the named third party), ``published`` (by the vendor or a paper) or ``estimate``
    (ours; ``source`` gives the reasoning). ``date`` is when the source was read. ``spread`` is how far, as a ratio
    either way, one standard deviation is taken to be; None for what is usual for its kind.
    """

    value: float
    kind: FigureKind
    source: str
    date: str
    spread: float | None = None

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ValueError(f"a device figure must not be negative, got {self.value}")
        if not self.source or not self.date:
            raise ValueError("a device figure needs a source and a date")
        if self.spread is not None and self.spread <= 1.0:
            raise ValueError(f"a spread is a ratio above 1, got {self.spread}")

    @property
    def log_sd(self) -> float:
        """Standard deviation of the logarithm of the figure."""
        return log(self.spread or _USUAL_SPREAD[self.kind])
