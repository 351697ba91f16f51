"""Published rows as things to predict: which network on which device, run how; and the relations between them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from iphone_networks import efficientformer_v2, snapgen_pp_dit, snapgen_unet

from latency_models import device
from latency_models.devices import WeightFormat
from latency_models.features import BlockFeatures, block_features
from latency_models.rates import RateSample
from nas.core.errors import InputError
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
    from collections.abc import Callable
    from pathlib import Path

    from nas.core.workload import Workload

HALF_CHANNELS = (64, 128, 256, 256)
PLAIN = WeightFormat()
V1, V2 = "split_einsum", "split_einsum_v2"
_DEVICES = {
    "iPhone 12 mini": "iphone12_mini",
    "iPhone 12 Mini": "iphone12_mini",
    "iPhone 12 Pro": "iphone12_pro",
    "iPhone 12 Pro Max": "iphone12_pro_max",
    "iPhone 13": "iphone13",
    "iPhone 13 Pro Max": "iphone13_pro_max",
    "iPhone 14": "iphone14",
    "iPhone 14 Pro": "iphone14_pro",
    "iPhone 14 Pro Max": "iphone14_pro_max",
    "iPhone 15 Pro Max": "iphone15_pro_max",
    "iPad Pro (M1)": "ipad_pro_m1",
    "iPad Pro (M2)": "ipad_pro_m2",
    "MacBook Pro (M1 Max)": "mac_m1_max",
    "MacBook Pro (M2 Max)": "mac_m2_max",
    "Mac Studio (M1 Ultra)": "mac_m1_ultra",
}
_WORKLOADS: dict[str, Callable[[], Workload]] = {
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
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published time: a network on a device, and how it was run."""

    network: str
    device: str
    ms: float
    weights: WeightFormat = PLAIN
    attention: str = V1
    gpu: bool = False

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
class Relation:
    """Published times that are comparable with each other, other rows of their source, and what is assumed."""

    name: str
    rows: tuple[Row, ...]
    others: tuple[Row, ...] = ()
    assumed: str = ""


@cache
def blocks_of(network: str) -> tuple[BlockFeatures, ...]:
    """Features of a named network."""
    return block_features(_WORKLOADS[network]())


def find(folder: Path, name: str) -> list[dict[str, str]]:
    """Rows of the one file of that name below ``folder``."""
    found = sorted(folder.rglob(name))
    if not found:
        raise InputError(f"{folder}: no file {name!r} in it or below", hint="give the folder that holds the data sets")
    with found[0].open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def apple_rows(folder: Path) -> list[Row]:
    """UNet steps of apple/ml-stable-diffusion, of devices that are known here."""
    rows = []
    for line in find(folder, "apple_coreml.csv"):
        if line["source"] != "apple/ml-stable-diffusion":
            continue
        name, large = line["model"], line["model"].startswith("stable-diffusion-xl")
        bits = 6.0 if not large else 4.04 if "4.04-bit" in name else 16.0
        size = "1024" if "1024px" in name else "768"
        rows.append(
            Row(
                network=f"SDXL UNet {size} px, guided" if large else "SD 2.1 UNet, guided",
                device=_DEVICES[line["device"]],
                ms=float(line["latency_ms"]),
                weights=WeightFormat(bits=bits, form="palettised") if bits < 16.0 else PLAIN,
                attention=V2 if line["attention"].endswith("V2") else V1,
                gpu="GPU" in line["unit"],
            )
        )
    return rows


def relations(folder: Path) -> list[Relation]:
    """The nine relations of one source each, with the figures as the file of published latencies has them."""
    lines = find(folder, "published_device_latencies.csv")

    def published(model: str, component: str, name: str) -> float:
        for line in lines:
            if line["model"] == model and line["component"].startswith(component) and line["device"] == name:
                return float(line["latency_ms"])
        raise InputError(f"published_device_latencies.csv: no row of {model!r}, {component!r} on {name!r}")

    phones = ("iPhone 12 Pro Max", "iPhone 13 Pro Max", "iPhone 14 Pro")
    fusion = {
        part: tuple(
            Row(network=network, device=_DEVICES[name], ms=published("SnapFusion", component, name)) for name in phones
        )
        for part, network, component in (
            ("unet", "SnapFusion UNet", "efficient UNet"),
            ("decoder", "halved SD decoder", "compressed image decoder"),
            ("text", "CLIP text encoder", "text encoder"),
        )
    }
    whole = Row(network="SD v1.5 UNet", device="iphone14_pro", ms=published("SD v1.5", "UNet", "iPhone 14 Pro"))
    full = Row(network="SD decoder", device="iphone14_pro", ms=published("SD v1.5", "VAE decoder", "iPhone 14 Pro"))
    six = WeightFormat(bits=6.0, form="palettised")
    apple = tuple(
        Row(
            network="SD 2.1 UNet, guided",
            device=_DEVICES[name],
            ms=published("SD 2.1-base (6-bit weights)", "UNet step", name),
            weights=six,
            attention=V2,
        )
        for name in ("iPhone 12 Pro Max", "iPhone 13 Pro Max", "iPhone 14 Pro Max")
    )
    large = tuple(
        Row(
            network="SDXL UNet 768 px, guided",
            device=_DEVICES[name],
            ms=published("SDXL base (4.04-bit weights)", "UNet step", name),
            weights=WeightFormat(bits=4.04, form="palettised"),
        )
        for name in ("iPhone 12 Pro", "iPhone 13 Pro Max", "iPhone 14 Pro Max", "iPhone 15 Pro Max", "iPad Pro (M1)")
    )
    snapgen = [274.0 * 2.4 / (1 - 0.24) / 0.91, 274.0 * 2.4 / 0.91, 274.0 / 0.91, 274.0]
    names = ["SnapGen, all self-attention", "SnapGen, lowest self-attention", "SnapGen, + separable", "SnapGen, + MQA"]
    dit = {"SnapGen++ DiT": 2000.0, "SnapGen++ three stages": 550.0, "SnapGen++ + sparse": 293.0}
    former = {"EfficientFormerV2 full": 3.5, "EfficientFormerV2 pooled": 2.8, "EfficientFormerV2 stride": 1.5}
    turbo = {"halved SD decoder": 1000 / 161.8, "halved SD decoder, 720 x 1280": 1000 / 38.1}
    return [
        Relation(
            name="SnapFusion UNet on A14 : A15 : A16",
            rows=fusion["unet"],
            others=(*fusion["decoder"], *fusion["text"]),
            assumed="split of the blocks at 1/64; 759 M parameters where 848 M are published; split einsum",
        ),
        Relation(name="Apple SD 2.1 UNet on A14 : A15 : A16", rows=apple, others=large),
        Relation(
            name="SnapFusion, SD v1.5 : evolved UNet",
            rows=(whole, fusion["unet"][2]),
            others=(*fusion["decoder"], *fusion["text"]),
            assumed="as above; one pass, as the paper does not say whether guidance doubles it",
        ),
        Relation(
            name="SnapFusion, decoder : half its channels",
            rows=(full, fusion["decoder"][2]),
            others=(*fusion["unet"], *fusion["text"]),
            assumed="uniform pruning of every layer by half, as the paper says",
        ),
        Relation(
            name="SnapGen, all : lowest self-attention : separable : MQA",
            rows=tuple(
                Row(network=name, device="iphone15_pro", ms=ms) for name, ms in zip(names, snapgen, strict=True)
            ),
            assumed="1024 px latents, one transformer behind each ResNet block, expansion 2; only ratios are published "
            "(-24 %, 2.4x, -9 %), the times are these on the 274 ms of another phone",
        ),
        Relation(
            name="SnapGen++, DiT : three stages : sparse attention",
            rows=tuple(Row(network=name, device="iphone16_pro_max", ms=ms) for name, ms in dit.items()),
            assumed="width 1152, 31 layers, half at 1/4 of the tokens; the published 360 (layers moved, grouped "
            "queries) and the UNet's 274 ms are of structures that are not public: not predicted",
        ),
        Relation(
            name="EfficientFormerV2, full : pooled : stride attention",
            rows=tuple(Row(network=name, device="iphone12", ms=ms) for name, ms in former.items()),
            assumed="size S2, feed-forward of 4, 4 attention blocks in the last two stages",
        ),
        Relation(
            name="SnapGen-V decoder, 27.2 s to 0.54 s",
            rows=(Row(network="SD decoder", device="iphone16_pro_max", ms=4100.0 / 17),),
            assumed="neither the temporal decoder nor the compressed ones are public: only the original spatial one, "
            "4.1 s for 17 frames, is predicted, as Stable Diffusion's, one frame at a time",
        ),
        Relation(
            name="Turbo-VAED, 512 x 512 : 720 x 1280 px",
            rows=tuple(Row(network=name, device="iphone16_pro", ms=ms) for name, ms in turbo.items()),
            assumed="its structure is not in our sources: Stable Diffusion's decoder with half the channels stands in, "
            "so that only the ratio (4.25) means something",
        ),
    ]
