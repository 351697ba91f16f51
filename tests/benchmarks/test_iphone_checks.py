"""Rows of Apple's table become samples, and errors are shares of ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING

import iphone_checks
import numpy as np
import pytest
from iphone_rows import apple_rows

from nas.core.errors import InputError
from nas.pipeline.published_rows import PLAIN, V1, V2

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
    with pytest.raises(InputError, match=r"no file 'apple_coreml.csv' in it or below"):
        apple_rows(tmp_path)


def test_error_shares_are_of_ratios_either_way() -> None:
    found = iphone_checks.summary(np.log([1.05, 1 / 1.05, 1.2, 2.0]))
    assert (found["within_10"], found["within_25"], found["worst"]) == pytest.approx((0.5, 0.75, 1.0))
