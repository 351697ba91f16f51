import pytest

from nas.core.cost import Interval
from nas.core.units import (
    count,
    duration,
    latency,
    latency_with_interval,
    megabytes,
    memory,
    milliseconds,
    probability,
    quantity,
    ratio,
    significant,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234.5, "1,230"),
        (412.4, "412"),
        (41.26, "41.3"),
        (9.996, "10.0"),
        (0.04567, "0.0457"),
        (-3.14159, "-3.14"),
        (999.6, "1,000"),
        (2.764e-9, "2.8e-09"),
        (0.0000123, "0.0000123"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(("value", "text"), [(412.4, "412 ms"), (4123.0, "4.12 s"), (None, "—"), (0.35, "0.350 ms")])
def test_latency_picks_its_unit(value: float | None, text: str) -> None:
    assert latency(value) == text


@pytest.mark.parametrize(("value", "text"), [(35.62, "35.6 MB"), (1288.5, "1.29 GB"), (None, "—")])
def test_memory_picks_its_unit(value: float | None, text: str) -> None:
    assert memory(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (9999, "9,999"), (12_345, "12.3 k"), (828_400, "828 k"), (612_345_678, "612 M"), (2.5e9, "2.50 B")],
)
def test_count_is_exact_below_ten_thousand(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0831, "8.3 %"), (1.0, "100 %"), (0.0, "0 %"), (None, "—")])
def test_ratio_is_a_percentage(value: float | None, text: str) -> None:
    assert ratio(value) == text


@pytest.mark.parametrize(("value", "text"), [(4.16, "4.2 s"), (61.4, "61.4 s"), (372, "6.2 min"), (7200, "2.0 h")])
def test_duration_picks_its_unit(value: float, text: str) -> None:
    assert duration(value) == text


def test_interval_is_in_the_unit_of_its_value() -> None:
    text = latency_with_interval(4100.0, Interval(low=3800.0, high=4400.0, coverage=0.9), "predicted")
    assert text == "4.10 s (3.80–4.40, 90 %, predicted)"  # noqa: RUF001  # a range's dash


@pytest.mark.parametrize(
    ("value", "unit", "time_ms"),
    [(2.0, "s", 2000.0), (3.0, "ms", 3.0), (5.0, "us", 0.005), (7e6, "ns", 7.0), (1.5, "µs", 0.0015), (2, "MSEC", 2.0)],
)
def test_times_convert_by_their_unit(value: float, unit: str, time_ms: float) -> None:
    assert milliseconds(value, unit) == pytest.approx(time_ms, rel=1e-12)


@pytest.mark.parametrize(
    ("value", "unit", "size_mb"),
    [
        (5e6, "bytes", 5.0),
        (1.0, "MiB", 1.048576),
        (2.0, "GB", 2000.0),
        (1, "GiB", 1073.741824),
        (55266.424, "kB", 55.266424),
    ],
)
def test_sizes_convert_by_their_unit(value: float, unit: str, size_mb: float) -> None:
    assert megabytes(value, unit) == pytest.approx(size_mb, rel=1e-12)


@pytest.mark.parametrize("unit", ["", "m", "MB", "it/s"])
def test_a_unit_that_is_no_time_is_refused(unit: str) -> None:
    with pytest.raises(ValueError, match=f"unknown time unit '{unit}'; known are ns, us"):
        milliseconds(1.0, unit)


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("75.6 ms", 75.6, "ms"),
        ("3,442 MB", 3442.0, "MB"),
        ("12", 12.0, ""),
        (" ~50 ", 50.0, ""),
        ("1e-3s", 0.001, "s"),
        ("-4 µs", -4.0, "µs"),
    ],
)
def test_a_quantity_splits_into_number_and_unit(text: str, number: float, unit: str) -> None:
    assert quantity(text) == (number, unit)


@pytest.mark.parametrize("text", ["", "ms", "32 to 36", "3,44 MB", "inf", "1.2.3", "5 ms ms"])
def test_what_is_no_single_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        quantity(text)


@pytest.mark.parametrize(("value", "text"), [(0.9499, "0.950"), (0.99949, "0.999"), (0.9999, ">0.999"), (0.0, "0.000")])
def test_no_probability_is_shown_as_certain(value: float, text: str) -> None:
    assert probability(value) == text
