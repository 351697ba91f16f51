"""UNet steps of apple/ml-stable-diffusion, as the public table of Apple devices has them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from latency_models.devices import WeightFormat
from nas.core.errors import InputError
from nas.pipeline.published_rows import PLAIN, V1, V2, Row

if TYPE_CHECKING:
    from pathlib import Path

_DEVICES = {
    "iPhone 12 mini": "iphone12_mini",
    "iPhone 12 Pro": "iphone12_pro",
    "iPhone 12 Pro Max": "iphone12_pro_max",
    "iPhone 13": "iphone13",
    "iPhone 13 Pro Max": "iphone13_pro_max",
    "iPhone 14": "iphone14",
    "iPhone 14 Pro Max": "iphone14_pro_max",
    "iPhone 15 Pro Max": "iphone15_pro_max",
    "iPad Pro (M1)": "ipad_pro_m1",
    "iPad Pro (M2)": "ipad_pro_m2",
    "MacBook Pro (M1 Max)": "mac_m1_max",
    "MacBook Pro (M2 Max)": "mac_m2_max",
    "Mac Studio (M1 Ultra)": "mac_m1_ultra",
}


def apple_rows(folder: Path) -> list[Row]:
    """Return the table's rows of devices that are known here.

    Raises:
        InputError: There is no such table below ``folder``.
    """
    found = sorted(folder.rglob("apple_coreml.csv"))
    if not found:
        raise InputError(
            f"{folder}: no file 'apple_coreml.csv' in it or below", hint="give the folder that holds the data sets"
        )
    rows = []
    with found[0].open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["source"] == "apple/ml-stable-diffusion"]
    for line in lines:
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
