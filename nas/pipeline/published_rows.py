"""Published latencies as things to predict: which network on which device, run how; and the relations between them.

The figures come from a table in the layout of ``published_latencies.csv`` beside this file, whose rows name where each
was read. What a row's network is stands in ``DESCRIBED``; a network whose structure is not public is not in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from latency_models import device
from latency_models.devices import WeightFormat
from latency_models.features import BlockFeatures, block_features
from latency_models.importers.contract import read_csv
from latency_models.importers.naming import device_name
from latency_models.rates import RateSample
from nas.core.errors import InputError
from search_spaces.published_networks import efficientformer_v2, snapgen_pp_dit, snapgen_unet
from search_spaces.stable_diffusion import (
    SD15_UNET,
    SD21_UNET,
    SDXL_UNET,
    SNAPFUSION_UNET,
    text_encoder_workload,
    unet_workload,
    vae_decoder_workload,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nas.core.workload import Workload

TABLE = "published_latencies.csv"
FOREIGN_TABLE = "published_device_latencies.csv"
HALF_CHANNELS = (64, 128, 256, 256)
PLAIN = WeightFormat()
V1, V2 = "split_einsum", "split_einsum_v2"
WORKLOADS: dict[str, Callable[[], Workload]] = {
    "SD 2.1 UNet, guided": lambda: unet_workload(SD21_UNET, batch=2, height=64, width=64),
    "SDXL UNet 768 px, guided": lambda: unet_workload(SDXL_UNET, batch=2, height=96, width=96),
    "SDXL UNet 1024 px, guided": lambda: unet_workload(SDXL_UNET, batch=2, height=128, width=128),
    "SD v1.5 UNet": lambda: unet_workload(SD15_UNET, batch=1, height=64, width=64),
    "SnapFusion UNet": lambda: unet_workload(SNAPFUSION_UNET, batch=1, height=64, width=64),
    "SD decoder": lambda: vae_decoder_workload(1, 512, 512),
    "halved SD decoder": lambda: vae_decoder_workload(1, 512, 512, channels=HALF_CHANNELS),
    "halved SD decoder, 720 x 1280": lambda: vae_decoder_workload(1, 720, 1280, channels=HALF_CHANNELS),
    "CLIP text encoder": text_encoder_workload,
    "SnapGen, all self-attention": lambda: snapgen_unet(high_attention=True, separable=False, multi_query=False),
    "SnapGen, lowest self-attention": lambda: snapgen_unet(high_attention=False, separable=False, multi_query=False),
    "SnapGen, + separable": lambda: snapgen_unet(high_attention=False, separable=True, multi_query=False),
    "SnapGen, + MQA": lambda: snapgen_unet(high_attention=False, separable=True, multi_query=True),
    "SnapGen++ DiT": lambda: snapgen_pp_dit(stages=False, sparse=False),
    "SnapGen++ three stages": lambda: snapgen_pp_dit(stages=True, sparse=False),
    "SnapGen++ + sparse": lambda: snapgen_pp_dit(stages=True, sparse=True),
    "EfficientFormerV2 full": lambda: efficientformer_v2("full"),
    "EfficientFormerV2 pooled": lambda: efficientformer_v2("pooled"),
    "EfficientFormerV2 stride": lambda: efficientformer_v2("stride"),
    **{
        f"EfficientFormerV2-{size}": lambda size=size: efficientformer_v2("stride", size)  # type: ignore[misc]
        for size in ("S0", "S1", "S2", "L")
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Which rows of a table are of which network: exact model, beginning of the component.

    ``calls`` is how many calls of the network the published time is of; ``assumed`` what of it is not published.
    """

    model: str
    component: str
    network: str
    calls: int = 1
    assumed: str = ""


_FUSION = "split of the blocks at 1/64; 759 M parameters where 848 M are published"
_SNAPGEN = "1024 px latents, one transformer behind each ResNet block, expansion 2"
_DIT = "width 1152, 31 layers, half at 1/4 of the tokens"
_FORMER = "size S2, feed-forward of 4, 4 attention blocks in the last two stages"
DESCRIBED = (
    Description(model="SD v1.5", component="text encoder", network="CLIP text encoder", assumed="ViT-L/14"),
    Description(model="SD v1.5", component="UNet", network="SD v1.5 UNet", assumed="one pass a step"),
    Description(model="SD v1.5", component="VAE decoder", network="SD decoder"),
    Description(model="SnapFusion", component="text encoder", network="CLIP text encoder", assumed="ViT-L/14"),
    Description(model="SnapFusion", component="efficient UNet", network="SnapFusion UNet", assumed=_FUSION),
    Description(
        model="SnapFusion",
        component="compressed image decoder",
        network="halved SD decoder",
        assumed="half of every layer's channels",
    ),
    Description(model="SnapGen UNet", component="denoiser", network="SnapGen, + MQA", assumed=_SNAPGEN),
    Description(model="SnapGen++ ablation", component="baseline", network="SnapGen++ DiT", assumed=_DIT),
    Description(
        model="SnapGen++ ablation",
        component="three-stage DiT + adaptive sparse attention",
        network="SnapGen++ + sparse",
        assumed=_DIT,
    ),
    Description(
        model="SnapGen++ ablation", component="three-stage DiT", network="SnapGen++ three stages", assumed=_DIT
    ),
    Description(
        model="SnapGen-V VAE",
        component="VAE spatial decoder, original",
        network="SD decoder",
        calls=17,
        assumed="Stable Diffusion's decoder; 17 frames one by one, the time of one",
    ),
    Description(model="SD 2.1-base (6-bit weights)", component="UNet step", network="SD 2.1 UNet, guided"),
    Description(model="SDXL base (4.04-bit weights)", component="UNet step", network="SDXL UNet 768 px, guided"),
    Description(model="SDXL base (fp16)", component="UNet step", network="SDXL UNet 1024 px, guided"),
    *(
        Description(
            model=f"EfficientFormerV2-{size}",
            component="whole network",
            network=f"EfficientFormerV2-{size}",
            assumed="feed-forward of 4, attention as wide as its stage",
        )
        for size in ("S0", "S1", "S2", "L")
    ),
    Description(
        model="EfficientFormerV2 ablation",
        component="baseline + MHSA",
        network="EfficientFormerV2 full",
        assumed=_FORMER,
    ),
    Description(
        model="EfficientFormerV2 ablation",
        component="MHSA at 1/16 with down-sampled",
        network="EfficientFormerV2 pooled",
        assumed=_FORMER,
    ),
    Description(
        model="EfficientFormerV2 ablation",
        component="MHSA at 1/16 with stride",
        network="EfficientFormerV2 stride",
        assumed=_FORMER,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published time: a network on a device, how it was run, and who says so."""

    network: str
    device: str
    ms: float
    weights: WeightFormat = PLAIN
    attention: str = V1
    gpu: bool = False
    model: str = ""
    source: str = ""
    confidence: str = ""
    assumed: str = ""

    @property
    def sample(self) -> RateSample:
        """The row as something to fit on or to predict."""
        return RateSample(
            device=device(self.device),
            blocks=blocks_of(self.network),
            measured_ms=self.ms,
            weights=self.weights,
            compute_units="cpu_and_gpu" if self.gpu else "cpu_and_ne",
            lowerings=() if self.gpu else (("neural_engine", self.attention),),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Rows of a table that are not predicted, by reason, with the networks they are of."""

    reason: str
    count: int
    models: tuple[str, ...]


@cache
def blocks_of(network: str) -> tuple[BlockFeatures, ...]:
    """Features of a named network."""
    return block_features(WORKLOADS[network]())


def read_table(folder: Path | None) -> tuple[Path, list[dict[str, str]]]:
    """Return the table of published figures below ``folder``, ours without one, and its rows.

    Raises:
        InputError: The folder is missing or holds no such table, or the table lacks columns.
    """
    path = Path(__file__).with_name(TABLE) if folder is None else _find(folder)
    header, rows = read_csv(path)
    wanted = ("model", "component", "resolution", "device", "compute_unit", "latency_ms", "source", "confidence")
    missing = [name for name in wanted if name not in header]
    if missing:
        raise InputError(f"{path}: columns missing: {', '.join(missing)}", hint=f"needs {', '.join(wanted)}")
    return path, [cells for _, cells in rows]


def _find(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    found = sorted(item for name in (FOREIGN_TABLE, TABLE) for item in folder.rglob(name))
    if not found:
        raise InputError(
            f"{folder}: no file {FOREIGN_TABLE!r} or {TABLE!r} in it or below",
            hint="give the folder that holds the table, or none for the figures that come with the toolkit",
        )
    return found[0]


def rows_of(lines: Sequence[Mapping[str, str]], *, where: str) -> tuple[list[Row], list[LeftOut]]:
    """Return what of a table can be predicted, and the rest by reason; servers and other phones are no rows of it.

    Raises:
        InputError: A time is no number above 0.
    """
    rows: list[Row] = []
    rest: dict[str, dict[str, int]] = {}
    for number, cells in enumerate(lines, start=2):
        reason = _left_out(cells)
        if reason is None:
            rows.append(_row(cells, where=f"{where}: line {number}"))
        elif reason:
            known = rest.setdefault(reason, {})
            known[cells["model"]] = known.get(cells["model"], 0) + 1
    return rows, [
        LeftOut(reason=reason, count=sum(models.values()), models=tuple(models)) for reason, models in rest.items()
    ]


def _left_out(cells: Mapping[str, str]) -> str | None:
    """Return why a row is not predicted; empty for a device that is none of Apple's, None when it is."""
    name = _device(cells["device"])
    if name is None:
        apple = re.match(r"i(Phone|Pad)|Mac|Apple", cells["device"]) is not None
        return "a device that is not known here" if apple else ""
    if cells["confidence"].startswith("memory-unverified"):
        return "a recollection, no figure"
    if not cells["latency_ms"]:
        return "no time: it did not run or ran out of memory"
    if cells["component"].startswith(("end-to-end", "streaming")) or "loop" in cells["component"]:
        return "several calls and phases in one figure"
    return None if _described(cells) else "the network's structure is not public or not described here"


def _described(cells: Mapping[str, str]) -> Description | None:
    fitting = (
        item for item in DESCRIBED if item.model == cells["model"] and cells["component"].startswith(item.component)
    )
    return next(fitting, None)


def _device(text: str) -> str | None:
    """Return our name of a device; of a Mac its chip tells which."""
    mac = re.fullmatch(r"Mac[\w ]* \((M\d[^)]*)\)", text)
    name = f"Mac with {mac[1]}" if mac else text.replace("(assumed)", "")
    try:
        return device_name(name)
    except ValueError:
        return None


def _row(cells: Mapping[str, str], *, where: str) -> Row:
    item = _described(cells)
    assert item is not None
    try:
        ms = float(cells["latency_ms"])
    except ValueError as error:
        raise InputError(f"{where}: latency_ms must be a number, got {cells['latency_ms']!r}") from error
    if not 0.0 < ms < float("inf"):
        raise InputError(f"{where}: latency_ms must be above 0 and finite, got {cells['latency_ms']}")
    bits = re.search(r"([\d.]+)-bit", f"{cells['model']} {cells['component']}")
    return Row(
        network=item.network,
        device=_device(cells["device"]) or "",
        ms=ms / item.calls,
        weights=WeightFormat(bits=float(bits[1]), form="palettised") if bits else PLAIN,
        attention=V2 if "SPLIT_EINSUM_V2" in cells["component"] else V1,
        gpu="GPU" in cells["compute_unit"],
        model=cells["model"],
        source=cells["source"],
        confidence=cells["confidence"],
        assumed=item.assumed,
    )
