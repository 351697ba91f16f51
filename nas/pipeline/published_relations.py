"""Nine relations between published times of one source each: what a predictor should order rightly, whatever its scale.

Source:
    The list of external checks collected for this project; figures from the table of ``published_rows``, or where it
    has only percentages from the papers that are named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.pipeline.published_rows import DESCRIBED, PLAIN, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

_PHONES = ("iphone12_pro_max", "iphone13_pro_max", "iphone14_pro")
# SnapGen's ablation as it is published (arXiv:2412.09619): -24 %, 2.4 times, -9 %, on the 274 ms of another phone.
_SNAPGEN_MS = {
    "SnapGen, all self-attention": 274.0 * 2.4 / (1 - 0.24) / 0.91,
    "SnapGen, lowest self-attention": 274.0 * 2.4 / 0.91,
    "SnapGen, + separable": 274.0 / 0.91,
    "SnapGen, + MQA": 274.0,
}
# Frames a second of Turbo-VAED-LTX (github.com/hustvl/Turbo-VAED, table 2).
_TURBO_MS = {"halved SD decoder": 1000 / 161.8, "halved SD decoder, 720 x 1280": 1000 / 38.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Published times that are comparable with each other, other rows of their source, and what is assumed.

    ``rows`` is empty where the table lacks one of the figures; ``missing`` says which.
    """

    name: str
    rows: tuple[Row, ...]
    others: tuple[Row, ...] = ()
    assumed: str = ""
    missing: str = ""


def relations(rows: Sequence[Row]) -> list[Relation]:
    """Return the nine relations with the figures of a table's rows."""
    known = {(row.network, row.device): row for row in reversed(rows)}  # the first row of a table counts

    def of(network: str, *devices: str) -> list[Row | str]:
        return [known.get((network, name), f"{network} on {name}") for name in devices]

    fusion = of("SnapFusion UNet", *_PHONES)
    decoder = of("halved SD decoder", *_PHONES)
    text = of("CLIP text encoder", *_PHONES)
    dit = ("SnapGen++ DiT", "SnapGen++ three stages", "SnapGen++ + sparse")
    former = [f"EfficientFormerV2 {name}" for name in ("full", "pooled", "stride")]
    return [
        _relation(
            "SnapFusion UNet on A14 : A15 : A16",
            fusion,
            others=(*decoder, *text),
            assumed=f"{_assumed('SnapFusion UNet')}; split einsum",
        ),
        _relation(
            "Apple SD 2.1 UNet on A14 : A15 : A16",
            of("SD 2.1 UNet, guided", "iphone12_pro_max", "iphone13_pro_max", "iphone14_pro_max"),
            others=[row for row in rows if row.network == "SDXL UNet 768 px, guided"],
        ),
        _relation(
            "SnapFusion, SD v1.5 : evolved UNet",
            [*of("SD v1.5 UNet", "iphone14_pro"), fusion[2]],
            others=(*decoder, *text),
            assumed="as above; one pass, as the paper does not say whether guidance doubles it",
        ),
        _relation(
            "SnapFusion, decoder : half its channels",
            [*of("SD decoder", "iphone14_pro"), decoder[2]],
            others=(*fusion, *text),
            assumed="uniform pruning of every layer by half, as the paper says",
        ),
        _relation(
            "SnapGen, all : lowest self-attention : separable : MQA",
            _stated(_SNAPGEN_MS, "iphone15_pro"),
            assumed=f"{_assumed('SnapGen, + MQA')}; only ratios are published (-24 %, 2.4x, -9 %), the times are these "
            "on the 274 ms of another phone",
        ),
        _relation(
            "SnapGen++, DiT : three stages : sparse attention",
            [row for name in dit for row in of(name, "iphone16_pro_max")],
            assumed=f"{_assumed('SnapGen++ DiT')}; the published 360 (layers moved, grouped queries) and the UNet's "
            "274 ms are of structures that are not public: not predicted here",
        ),
        _relation(
            "EfficientFormerV2, full : pooled : stride attention",
            [row for name in former for row in of(name, "iphone12")],
            assumed=_assumed("EfficientFormerV2 full"),
        ),
        _relation(
            "SnapGen-V decoder, 27.2 s to 0.54 s",
            of("SD decoder", "iphone16_pro_max"),
            assumed="neither the temporal decoder nor the compressed ones are public: only the original spatial one, "
            "4.1 s for 17 frames, is predicted, as Stable Diffusion's, one frame at a time",
        ),
        _relation(
            "Turbo-VAED, 512 x 512 : 720 x 1280 px",
            _stated(_TURBO_MS, "iphone16_pro"),
            assumed="its structure is not in our sources: Stable Diffusion's decoder with half the channels stands in, "
            "so that only the ratio (4.25) means something",
        ),
    ]


def _relation(name: str, rows: Sequence[Row | str], *, others: Sequence[Row | str] = (), assumed: str = "") -> Relation:
    """Return a relation of rows; where one stands as the words for a missing figure, without any."""
    missing = [item for item in rows if isinstance(item, str)]
    return Relation(
        name=name,
        rows=() if missing else tuple(item for item in rows if isinstance(item, Row)),
        others=tuple(item for item in others if isinstance(item, Row)),
        assumed=assumed,
        missing=f"the table lacks {'; '.join(missing)}" if missing else "",
    )


def _stated(times_ms: dict[str, float], device: str) -> list[Row | str]:
    return [Row(network=name, device=device, ms=ms, weights=PLAIN) for name, ms in times_ms.items()]


def _assumed(network: str) -> str:
    return next(item.assumed for item in DESCRIBED if item.network == network)
