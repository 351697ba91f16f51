"""Named random streams from one seed: adding a consumer does not shift the others."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class RandomStreams:
    """Independent generators by name and index, all functions of ``seed``."""

    seed: int

    def integer(self, name: str, index: int = 0) -> int:
        """Return a 63-bit seed for ``name`` and ``index``; pass it to ``torch.Generator.manual_seed``."""
        digest = hashlib.sha256(f"{self.seed}/{name}/{index}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def python(self, name: str, index: int = 0) -> random.Random:
        """Return a standard-library generator."""
        return random.Random(self.integer(name, index))

    def numpy(self, name: str, index: int = 0) -> np.random.Generator:
        """Return a NumPy generator."""
        import numpy as np

        return np.random.default_rng(self.integer(name, index))
