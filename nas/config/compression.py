"""How the export stage compresses its package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from nas.config.section import Count, Positive, Section

if TYPE_CHECKING:
    from typing import Self

# coremltools 9.0: OpPalettizerConfig and OpLinearQuantizerConfig.
BITS = {"palettize": (1, 2, 3, 4, 6, 8), "linear": (4, 8), "sparse": tuple(range(1, 16))}


class CompressionSection(Section):
    """Form of the package's weights.

    ``auto`` takes bits and form that the cost was predicted for: those of ``device.weights``, or the bits that the
    search chose. ``mixed`` chooses a form for each weight, by measured error, so that the package fits ``package_mb``;
    ``sensitivity`` says whether the way of a layer's error to the outputs is measured too, a pass over the network for
    every weight (``auto``: where that takes at most 15 minutes). ``bits`` of ``sparse`` are 16 times the share of
    weights kept. A package whose PSNR against float32 is below ``min_psnr_db`` is refused.
    """

    type: Literal["auto", "none", "palettize", "linear", "sparse", "mixed"] = "auto"
    bits: Annotated[int, Field(ge=1, le=16)] | None = None
    group_size: Count | None = None
    block_size: Count | None = None
    weight_threshold: Annotated[int, Field(ge=0)] = 2048
    package_mb: Positive | None = None
    sensitivity: Literal["auto", "output", "layer"] = "auto"
    min_psnr_db: Positive | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        allowed = BITS.get(self.type)
        if allowed and self.bits not in allowed:
            raise ValueError(
                f"{self.type!r} needs bits, one of {', '.join(map(str, allowed))}, got {self.bits or 'none'}"
            )
        if not allowed and self.bits is not None:
            raise ValueError(f"bits are for {', '.join(BITS)}; {self.type!r} has none of its own")
        if (self.type == "mixed") != (self.package_mb is not None):
            raise ValueError("package_mb goes with type 'mixed', which needs it, and with no other")
        if self.group_size is not None and self.type not in {"palettize", "mixed"}:
            raise ValueError(f"group_size is for 'palettize' and 'mixed', not for {self.type!r}")
        if self.block_size is not None and self.type != "linear":
            raise ValueError(f"block_size is for 'linear', not for {self.type!r}")
        return self
