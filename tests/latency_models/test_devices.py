"""Device files are complete, sourced, and found by name."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from latency_models import devices
from nas.core.errors import ConfigError, InputError

PHONES = {
    "iphone12": "A14 Bionic",
    "iphone13": "A15 Bionic",
    "iphone13_pro_max": "A15 Bionic",
    "iphone14": "A15 Bionic",
    "iphone14_pro_max": "A16 Bionic",
    "iphone15": "A16 Bionic",
    "iphone15_pro_max": "A17 Pro",
    "iphone16": "A18",
    "iphone16_pro_max": "A18 Pro",
    "iphone17": "A19",
    "iphone17_pro_max": "A19 Pro",
}


@pytest.mark.parametrize(("name", "chip"), PHONES.items())
def test_phone_has_the_chip_apple_sells_it_with(name: str, chip: str) -> None:
    assert devices.get(name).chip == chip


def test_names_of_the_first_version_are_still_known() -> None:
    old = {"iphone14_pro", "iphone15_pro", "iphone16_pro_max", "host_cpu", "host_cuda"}
    assert old | {f"mac_m{generation}" for generation in range(1, 6)} <= set(devices.names())


def figures_of(value: Any) -> list[devices.Figure]:
    if isinstance(value, devices.Figure):
        return [value]
    if isinstance(value, tuple):
        return [figure for item in value for figure in figures_of(item)]
    if is_dataclass(value):
        return [figure for field in fields(value) for figure in figures_of(getattr(value, field.name))]
    return []


@pytest.mark.parametrize("name", devices.names())
def test_every_figure_has_source_and_date(name: str) -> None:
    figures = figures_of(devices.get(name))
    assert len(figures) >= 13  # memory, prior, crossing and what a unit needs
    assert all(len(figure.source) > 20 for figure in figures)
    assert all(figure.date.startswith("20") for figure in figures)
    assert all(unit.source for spec in devices.get(name).units for unit in spec.unsupported)


def test_a_chip_takes_over_what_it_does_not_state() -> None:
    m1, a14 = devices.get("mac_m1").unit("neural_engine"), devices.get("iphone12").unit("neural_engine")
    assert a14.rates == m1.rates
    assert a14.limits == m1.limits
    assert a14.weight_bandwidth != m1.weight_bandwidth


@pytest.mark.parametrize(
    ("name", "axis", "streams_8_bits", "streams_blocks"),
    [
        # ane-guide, per-chip limits and streaming tables; M1 pairs with A14, M2 with A15, M4 with A17 Pro.
        ("mac_m1", 16384, False, False),
        ("mac_m2", 16384, True, False),
        ("mac_m3", 16384, True, True),
        ("mac_m4", 65536, True, True),
        ("iphone12", 16384, False, False),
        ("iphone13", 16384, True, False),
        ("iphone17_pro", 65536, True, True),
    ],
)
def test_limits_follow_the_generation(name: str, axis: int, streams_8_bits: bool, streams_blocks: bool) -> None:
    engine = devices.get(name).unit("neural_engine")
    assert engine.limits.axis is not None
    assert engine.limits.axis.value == axis
    assert ("linear" in engine.streamed_forms, "blockwise" in engine.streamed_forms) == (streams_8_bits, streams_blocks)


def test_four_bit_weights_stream_as_fast_as_measured_and_unstreamed_ones_do_not() -> None:
    m1, m2 = devices.get("mac_m1").unit("neural_engine"), devices.get("mac_m2").unit("neural_engine")
    four, eight = (devices.WeightFormat(bits=bits, form=form) for bits, form in ((4, "palettised"), (8, "linear")))
    assert 1 / m1.weight_ratio(four) == pytest.approx(2.37, rel=0.01)  # ane-guide, M1
    assert m2.weight_ratio(eight) == pytest.approx(0.64, rel=0.03)  # ane-guide, M2
    assert m1.weight_ratio(eight) == 1.0  # folds to 16 bits on M1


def test_a_file_of_the_first_version_is_named_as_that() -> None:
    with pytest.raises(InputError, match=r"mine.yaml: schema is 'nas/device/1', a file for each device") as caught:
        devices.read_listings("schema: nas/device/1\nname: mine\n", where="mine.yaml")
    assert "chips/<chip>.yaml" in (caught.value.hint or "")


def test_a_precision_no_allowed_unit_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="no unit of 'iphone15_pro' allowed by compute_units 'all' computes at 'bfl"):
        devices.get("iphone15_pro").units_for("all", "bfloat16")


def test_single_precision_leaves_the_neural_engine() -> None:
    units = devices.get("iphone15_pro").units_for("all", "float32")
    assert [unit.compute_unit for unit in units] == ["gpu", "cpu"]


def test_dashes_and_underscores_are_alike() -> None:
    assert devices.get("host-cpu") is devices.get("host_cpu")


def test_unknown_device_lists_names_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'iphone16_prox' is not known; known are host_cpu.*did you mean 'iphone1"):
        devices.get("iphone16_prox")


@pytest.mark.parametrize(
    ("setting", "unit"),
    [("all", "neural_engine"), ("cpu_and_ne", "neural_engine"), ("cpu_and_gpu", "gpu"), ("cpu_only", "cpu")],
)
def test_core_ml_setting_picks_the_unit(setting: str, unit: str) -> None:
    assert devices.get("iphone15_pro").unit_for(setting).compute_unit == unit  # type: ignore[arg-type]  # parametrised


def test_a_device_with_one_unit_always_uses_it() -> None:
    assert devices.get("host_cpu").unit_for("cpu_and_ne").compute_unit == "cpu"


def test_accelerators_halve_at_single_precision_and_cpus_do_not() -> None:
    phone = devices.get("iphone15_pro").unit("gpu")
    host = devices.get("host_cpu").unit_for("all")
    assert phone.peak_flops_at("float32") == phone.peak_flops_at("float16") / 2
    assert host.peak_flops_at("float32") == host.peak_flops_at("float16")


def test_a_figure_without_source_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a source and a date"):
        devices.Figure(value=1.0, kind="estimate", source="", date="2026-01-01")
