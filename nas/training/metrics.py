"""What a stage says while it trains: lines of ``metrics.jsonl``, TensorBoard events, speed, memory and a loss watch."""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from nas.core.files import JsonLines, canonical_json, write_text_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# How many losses are remembered, how many are needed for a verdict, and how many in a row make one (all ours).
_REMEMBERED, _NEEDED, _IN_A_ROW = 64, 16, 5
# Losses below this count as this much, so that a loss near zero may rise from it (ours).
_FLOOR = 1e-3


@dataclass(slots=True)
class Window:
    """Sums since the last line of metrics."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, values: Mapping[str, float]) -> None:
        """Take in one step."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def means(self) -> dict[str, float]:
        """Mean of every value."""
        return {name: value / max(self.count, 1) for name, value in self.sums.items()}


class LossWatch:
    """Notices a loss that explodes: several in a row above ``ratio`` times the median of those before.

    Args:
        ratio: How many times the median; None never stops.
    """

    def __init__(self, ratio: float | None) -> None:
        self._ratio = ratio
        self._usual: deque[float] = deque(maxlen=_REMEMBERED)
        self._above = 0

    @property
    def calm(self) -> bool:
        """Whether the last loss was no suspect; checkpoints are written only then."""
        return self._above == 0

    @property
    def median(self) -> float:
        """Median of the remembered losses' magnitudes."""
        return max(statistics.median(self._usual), _FLOOR) if self._usual else _FLOOR

    def exploded(self, loss: float) -> bool:
        """Take in the loss of a step; whether it is one too many."""
        size = abs(loss)
        suspect = self._ratio is not None and len(self._usual) >= _NEEDED and size > self._ratio * self.median
        self._above = self._above + 1 if suspect else 0
        if not suspect:
            self._usual.append(size)
        return self._above >= _IN_A_ROW

    def state(self) -> list[float]:
        """What a resumed run must know; taken when ``calm``."""
        return list(self._usual)

    def load(self, state: list[float]) -> None:
        """Continue from ``state``."""
        self._usual.clear()
        self._usual.extend(state)


class Recorder:
    """Where the means of a stage go; in a process that does not write, nowhere.

    Args:
        stage: Name of the stage.
        path: The ``metrics.jsonl`` that all stages of a model share.
        events: Folder of TensorBoard events; None for none.
        writes: Whether this process writes files.
    """

    def __init__(self, stage: str, path: Path, *, events: Path | None, writes: bool) -> None:
        self._stage = stage
        self._lines = JsonLines(path)
        self._events = events if writes else None
        self._writes = writes
        self._board: Any = None
        self._began, self._first_step = time.perf_counter(), 0
        self.steps_per_s = 0.0

    def start(self, step: int) -> None:
        """Remove this stage's lines and events after ``step``, from which it goes on: they will be written again."""
        self._began, self._first_step = time.perf_counter(), step
        if not self._writes:
            return
        rows = self._lines.read()
        kept = [row for row in rows if row.get("stage") != self._stage or int(row["step"]) <= step]
        if len(kept) != len(rows):
            write_text_atomically(self._lines.path, "".join(canonical_json(row) + "\n" for row in kept))
        if self._events is not None:
            # Inside the function: candidates of a search write no events and need not load it.
            from tensorboardX import SummaryWriter

            # The suffix: a run that goes on within a second would otherwise write over the file before it.
            self._board = SummaryWriter(str(self._events), purge_step=step + 1, filename_suffix=f".{step}")

    def write(self, step: int, means: Mapping[str, float], *, rate: float, device: torch.device) -> str:
        """Write one line and return what a progress says of it."""
        self.steps_per_s = (step - self._first_step) / max(time.perf_counter() - self._began, 1e-9)
        memory_mb = used_memory_mb(device)
        if self._writes:
            self._lines.append({"stage": self._stage, "step": step, **means})
        if self._board is not None:
            speed = {"learning_rate": rate, "steps_per_s": self.steps_per_s, "memory_mb": memory_mb}
            for name, value in {**means, **speed}.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()
        return f"loss {means['loss']:.4f} · {self.steps_per_s:.3g} steps/s · {memory_mb:,.0f} MB"

    def close(self) -> None:
        """Finish the events."""
        if self._board is not None:
            self._board.close()
            self._board = None


def used_memory_mb(device: torch.device) -> float:
    """Largest memory allocated on a GPU so far; on a CPU what the process holds now. In 10^6 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import psutil

    return psutil.Process().memory_info().rss / 1e6
