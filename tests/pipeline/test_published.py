"""Published rows are recognised, predicted and shown; descriptions agree with what papers say of their networks."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from latency_models.rates import prior_ms
from nas.cli.main import main
from nas.core.errors import InputError
from nas.pipeline.published import compare_published, markdown, ratios
from nas.pipeline.published_relations import relations
from nas.pipeline.published_rows import Row, read_table, rows_of
from search_spaces.published_networks import efficientformer_v2, snapgen_pp_dit, snapgen_unet

if TYPE_CHECKING:
    from pathlib import Path

HEADER = ("model", "component", "resolution", "device", "compute_unit", "latency_ms", "source", "confidence")
SD21, STEP = "SD 2.1-base (6-bit weights)", "UNet step with CFG (SPLIT_EINSUM_V2)"
FORMER = "EfficientFormerV2-S0"
LINES = [
    (SD21, STEP, "512x512", "iPhone 14 Pro Max", "CPU_AND_NE", "371.7", "README", "found-derived"),
    (
        "SDXL base (fp16)",
        "UNet step with CFG (ORIGINAL)",
        "",
        "MacBook Pro (M1 Max)",
        "CPU_AND_GPU",
        "2174",
        "R",
        "found",
    ),
    ("SnapGen-V VAE", "VAE spatial decoder, original", "", "iPhone 16 Pro Max (assumed)", "", "4100", "notes", "found"),
    (FORMER, "whole network", "224x224", "iPhone 12", "all (report)", "0.9", "README", "found"),
    (FORMER, "whole network", "224x224", "iPhone 7", "all (report)", "9.0", "README", "found"),
    ("MobileDiffusion", "UNet, per step", "512x512", "iPhone 15 Pro", "", "142", "memory", "memory-unverified"),
    ("SDXL", "denoiser, per step (out of memory)", "", "iPhone 16 Pro Max", "", "", "paper", "found; out of memory"),
    ("SnapGen", "end-to-end text-to-image", "", "iPhone 16 Pro Max", "", "1400", "abstract", "seed"),
    ("S0", "whole network", "", "iPhone 12", "", "1", "x", "found"),
    ("OpenSora", "generation", "", "NVIDIA A100", "GPU", "31000", "slides", "seed"),
]


def table(folder: Path, lines: list[tuple[str, ...]], header: tuple[str, ...] = HEADER) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "published_device_latencies.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    path, lines = read_table(table(tmp_path / "data", LINES))
    return rows_of(lines, where=str(path))[0]


def test_rows_say_how_each_network_was_run(rows: list[Row]) -> None:
    apple, full, decoder, former = rows
    assert (apple.network, apple.device, apple.ms) == ("SD 2.1 UNet, guided", "iphone14_pro_max", 371.7)
    assert (apple.weights.bits, apple.weights.form, apple.attention) == (6.0, "palettised", "split_einsum_v2")
    assert (full.device, full.gpu, full.weights.form) == ("mac_m1_max", True, "plain")
    assert full.sample.compute_units == "cpu_and_gpu"
    assert (decoder.device, decoder.ms) == ("iphone16_pro_max", pytest.approx(4100 / 17))
    assert (former.device, former.sample.compute_units) == ("iphone12", "cpu_and_ne")


def test_what_is_not_predicted_is_counted_by_reason(tmp_path: Path) -> None:
    result = compare_published(table(tmp_path / "data", LINES))
    assert {item["reason"].split(":")[0]: item["models"] for item in result["left_out"]} == {
        "a device that is not known here": [FORMER],
        "a recollection, no figure": ["MobileDiffusion"],
        "no time": ["SDXL"],
        "several calls and phases in one figure": ["SnapGen"],
        "the network's structure is not public or not described here": ["S0"],
    }
    assert result["summary"]["rows"] == 4


def test_ratio_is_predicted_over_published(tmp_path: Path) -> None:
    result = compare_published(table(tmp_path / "data", LINES))
    row = result["rows"][0]
    # The network, its weights and its device are those of the row; 371.7 ms (apple/ml-stable-diffusion).
    expected = Row(network="SD 2.1 UNet, guided", device="iphone14_pro_max", ms=1.0, attention="split_einsum_v2")
    assert row["predicted_ms"] <= prior_ms(expected.sample)  # six bits are read faster than sixteen
    assert row["ratio"] == pytest.approx(row["predicted_ms"] / 371.7)
    assert row["inside"] is (1 / 3 <= row["ratio"] <= 3)


def test_relations_need_all_their_figures(rows: list[Row]) -> None:
    found = relations(rows)
    assert len(found) == 9
    assert [item.name.split(",")[0] for item in found if item.rows] == ["SnapGen", "SnapGen-V decoder", "Turbo-VAED"]
    apple = next(item for item in found if item.name.startswith("Apple"))
    assert apple.missing == (
        "the table lacks SD 2.1 UNet, guided on iphone12_pro_max; SD 2.1 UNet, guided on iphone13_pro_max"
    )


def test_own_table_has_every_relation_and_a_source_for_each_row() -> None:
    result = compare_published(None)
    assert all(item["published_ms"] for item in result["relations"])
    assert all(row["source"] and row["confidence"] for row in result["rows"])
    fusion = result["relations"][0]
    assert fusion["published_ms"] == [526.0, 315.0, 230.0]  # arXiv:2306.00980, table 4
    assert "| SnapFusion UNet on A14 : A15 : A16 | 2.29 : 1.37 : 1 |" in markdown(result)


def test_folder_without_a_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file 'published_device_latencies.csv' or"):
        compare_published(tmp_path)
    with pytest.raises(InputError, match=r"nowhere: is not a folder"):
        compare_published(tmp_path / "nowhere")


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"columns missing: compute_unit, latency_ms"):
        compare_published(table(tmp_path / "a", [], HEADER[:4] + HEADER[6:]))
    faulty = [*LINES[:1], (*LINES[1][:5], "fast", *LINES[1][6:])]
    with pytest.raises(InputError, match=r"line 3: latency_ms must be a number, got 'fast'"):
        compare_published(table(tmp_path / "b", faulty))


def test_command_prints_the_comparison_and_exits_3_without_a_table(tmp_path: Path) -> None:
    folder = table(tmp_path / "data", LINES)
    done = CliRunner().invoke(main, ["compare-published", "--data", str(folder), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["summary"]["rows"] == 4
    assert CliRunner().invoke(main, ["compare-published", "--data", str(tmp_path / "none")]).exit_code == 3


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
    assert ratios([526.0, 315.0, 230.0]) == "2.29 : 1.37 : 1"
    assert ratios([4100.0]) == "4,100 ms"


@pytest.mark.parametrize(("size", "millions"), [("S0", 3.5), ("S1", 6.1), ("S2", 12.6), ("L", 26.1)])
def test_efficientformers_have_about_their_published_size(size: str, millions: float) -> None:
    assert efficientformer_v2("stride", size).parameters == pytest.approx(1e6 * millions, rel=0.4)  # a simplification
