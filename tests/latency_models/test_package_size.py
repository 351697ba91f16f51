"""Predicted sizes of packages against real ones, that coremltools 9.0 wrote on Linux (2026-11)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import search_spaces
from latency_models import WeightFormat
from latency_models.package_size import package_mb
from nas.core.architecture import Architecture
from nas.core.scenario import Scenario

TINY = Scenario(
    frames=8, height=32, width=32, denoising_steps=4, guidance=False, precision="float16", compute_units="cpu_and_gpu"
)
# Bytes of real packages by option indices of ``tiny`` and by (form, bits).
REAL = {
    (0, 0, 0, 0, 0): {
        ("plain", 16): 1_874_312,
        ("palettised", 8): 1_027_502,
        ("palettised", 6): 804_547,
        ("palettised", 4): 584_318,
        ("linear", 8): 1_024_823,
        ("linear", 4): 590_516,
        ("sparse", 8): 1_124_432,
    },
    (6, 6, 6, 6, 6): {
        ("plain", 16): 3_215_403,
        ("palettised", 8): 1_719_369,
        ("palettised", 6): 1_333_719,
        ("palettised", 4): 950_162,
        ("linear", 8): 1_717_079,
        ("linear", 4): 957_012,
        ("sparse", 8): 1_887_981,
    },
    (12, 13, 1, 8, 16): {
        ("plain", 16): 2_342_214,
        ("palettised", 8): 1_335_728,
        ("palettised", 6): 1_069_297,
        ("palettised", 4): 805_932,
        ("linear", 8): 1_333_803,
        ("linear", 4): 815_784,
        ("sparse", 8): 1_436_718,
    },
}


@pytest.mark.parametrize("options", REAL)
def test_sizes_of_real_packages_are_met(options: tuple[int, ...]) -> None:
    space = search_spaces.get("tiny")
    workload = space.workload(space.from_options(list(options)), TINY)
    for (form, bits), real_bytes in REAL[options].items():
        found = package_mb(workload, WeightFormat(form=form, bits=bits))  # type: ignore[arg-type]
        assert found == pytest.approx(real_bytes / 1e6, rel=0.01 if form == "plain" else 0.021), (form, bits)


def test_the_size_of_an_exported_full_size_network_is_met() -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "export_size_gpu.json"
    record = json.loads(file.read_text())
    scenario = Scenario(
        **record["scenario"], denoising_steps=4, guidance=False, precision="float16", compute_units="cpu_and_gpu"
    )
    architecture = Architecture(space=record["architecture"]["space"], choices=record["architecture"]["choices"])
    workload = search_spaces.get("snapgen_v").workload(architecture, scenario)
    assert package_mb(workload) == pytest.approx(sum(record["package_bytes"].values()) / 1e6, rel=1e-3)


def test_single_precision_scenarios_export_half_precision_all_the_same() -> None:
    space = search_spaces.get("tiny")
    wide = Scenario(
        frames=8, height=32, width=32, denoising_steps=4, guidance=False, precision="float32", compute_units="cpu_only"
    )
    network = space.largest()
    assert package_mb(space.workload(network, wide)) == package_mb(space.workload(network, TINY))
