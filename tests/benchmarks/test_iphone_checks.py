"""Published rows become samples, relations their figures, and descriptions agree with what papers say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import iphone_checks
import numpy as np
import pytest
from iphone_networks import efficientformer_v2, snapgen_pp_dit, snapgen_unet
from iphone_rows import PLAIN, V1, V2, Row, apple_rows, relations

from latency_models.rates import prior_ms
from nas.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

# Four rows of apple/ml-stable-diffusion's README (MIT), and one of another source.
SOURCE = "apple/ml-stable-diffusion"
APPLE = [
    ("model", "device", "unit", "latency_ms", "source", "attention"),
    ("stable-diffusion-2-1-base UNet 512px (6-bit palettised)", "iPhone 13", "CPU_AND_NE", 395.26, SOURCE, V2.upper()),
    ("stable-diffusion-xl UNet 768px (4.04-bit mixed-bit)", "iPad Pro (M1)", "CPU_AND_NE", 1449.28, SOURCE, V1.upper()),
    ("stable-diffusion-xl-base-1.0 UNet 1024px (fp16)", "Mac Studio (M1 Ultra)", "CPU_AND_GPU", 1123.6, SOURCE, ""),
    ("YOLOv3", "iPhone 11 Pro", "default(all)", 83.0, "tucan9389/ObjectDetection-CoreML", ""),
]


def test_apple_rows_say_how_each_network_was_run(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    text = "\n".join(",".join(map(str, row)) for row in APPLE)
    (tmp_path / "deep" / "apple_coreml.csv").write_text(text)
    small, large, full = apple_rows(tmp_path)
    assert (small.network, small.device, small.ms, small.attention) == (
        "SD 2.1 UNet, guided",
        "iphone13",
        395.26,
        "split_einsum_v2",
    )
    assert (small.weights.bits, large.weights.bits) == (6.0, 4.04)
    assert (large.network, large.attention, large.gpu) == ("SDXL UNet 768 px, guided", "split_einsum", False)
    assert (full.network, full.weights, full.gpu) == ("SDXL UNet 1024 px, guided", PLAIN, True)
    assert full.sample.compute_units == "cpu_and_gpu"


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file 'published_device_latencies.csv' in it or below"):
        relations(tmp_path)


def test_prior_of_apple_s_steps_is_within_the_stated_factor() -> None:
    # 689.7 ms on an iPhone 12 Pro Max, 371.7 ms on a 14 Pro Max (apple/ml-stable-diffusion); prior_factor is 3.
    for name, published in (("iphone12_pro_max", 689.7), ("iphone14_pro_max", 371.7)):
        row = Row(network="SD 2.1 UNet, guided", device=name, ms=published, attention="split_einsum_v2")
        assert 1 / 3 < prior_ms(row.sample) / published < 3


def test_snapgen_without_high_self_attention_has_17_per_cent_fewer_flops() -> None:
    # Published: FLOPs -17 %; multi-query attention -6 % (SnapGen's ablation, notes on arXiv:2412.09619).
    plain = snapgen_unet(high_attention=True, separable=False, multi_query=False)
    low = snapgen_unet(high_attention=False, separable=False, multi_query=False)
    assert low.flops / plain.flops == pytest.approx(0.83, abs=0.01)
    separable = snapgen_unet(high_attention=False, separable=True, multi_query=False)
    shared = snapgen_unet(high_attention=False, separable=True, multi_query=True)
    assert shared.flops / separable.flops == pytest.approx(0.94, abs=0.02)


def test_dit_has_the_published_parameters_and_compression_saves_work() -> None:
    # 424 M, arXiv:2601.08303.
    assert snapgen_pp_dit(stages=False, sparse=False).parameters == pytest.approx(424e6, rel=0.01)
    flops = [snapgen_pp_dit(stages=True, sparse=sparse).flops for sparse in (False, True)]
    assert flops[1] < flops[0]


def test_efficientformer_has_about_s2_s_size() -> None:
    # 12.6 M parameters, 1.25 GMACs (arXiv:2212.08059); the description is a simplification.
    workload = efficientformer_v2("full")
    assert workload.parameters == pytest.approx(12.6e6, rel=0.25)
    assert workload.flops / 2 == pytest.approx(1.25e9, rel=0.15)


def test_ratios_are_to_the_last() -> None:
    assert iphone_checks.ratios([526.0, 315.0, 230.0]) == "2.29 : 1.37 : 1"
    assert iphone_checks.ratios([4100.0]) == "4,100 ms"


def test_error_shares_are_of_ratios_either_way() -> None:
    found = iphone_checks.summary(np.log([1.05, 1 / 1.05, 1.2, 2.0]))
    assert (found["within_10"], found["within_25"], found["worst"]) == pytest.approx((0.5, 0.75, 1.0))
