"""Device files are complete, sourced, and found by name."""

from __future__ import annotations

import pytest

from latency_models import devices
from nas.core.errors import ConfigError


def test_required_devices_are_known() -> None:
    assert {"iphone16_pro_max", "iphone15_pro", "iphone14_pro", "host_cpu"} <= set(devices.names())


@pytest.mark.parametrize("name", devices.names())
def test_every_figure_has_source_and_date(name: str) -> None:
    spec = devices.get(name)
    figures = [spec.usable_memory_mb, spec.prior_factor]
    for unit in spec.units:
        figures += [unit.peak_flops, unit.memory_bandwidth, unit.weight_bandwidth]
        figures += [unit.operation_overhead_ms, unit.call_overhead_ms]
    assert all(len(figure.source) > 20 for figure in figures)
    assert all(figure.date.startswith("20") for figure in figures)


def test_dashes_and_underscores_are_alike() -> None:
    assert devices.get("host-cpu") is devices.get("host_cpu")


def test_unknown_device_lists_names_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'iphone16_pro' is not known; known are host_cpu.*did you mean 'iphone1"):
        devices.get("iphone16_pro")


@pytest.mark.parametrize(
    ("setting", "unit"),
    [("all", "neural_engine"), ("cpu_and_ne", "neural_engine"), ("cpu_and_gpu", "gpu"), ("cpu_only", "cpu")],
)
def test_core_ml_setting_picks_the_unit(setting: str, unit: str) -> None:
    assert devices.get("iphone15_pro").unit_for(setting).compute_unit == unit  # type: ignore[arg-type]  # parametrised


def test_a_device_with_one_unit_always_uses_it() -> None:
    assert devices.get("host_cpu").unit_for("cpu_and_ne").compute_unit == "cpu"


def test_accelerators_halve_at_single_precision_and_cpus_do_not() -> None:
    phone = devices.get("iphone15_pro").unit_for("all")
    host = devices.get("host_cpu").unit_for("all")
    assert phone.peak_flops_at("float32") == phone.peak_flops_at("float16") / 2
    assert host.peak_flops_at("float32") == host.peak_flops_at("float16")


def test_a_figure_without_source_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a source and a date"):
        devices.Figure(value=1.0, kind="estimate", source="", date="2026-01-01")
