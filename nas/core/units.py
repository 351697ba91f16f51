"""Numbers as people read them, and as they come: units converted by name, results printed with two or three digits."""

from __future__ import annotations

import re
from math import floor, isfinite, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.core.cost import Budget, DeviceBudget, Interval

ABSENT = "—"

# Factors to milliseconds, and to MB of 1e6 bytes. A bare "K", "M" or "G" is left out: it may mean either size.
TIME_UNITS: dict[str, float] = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4}
MEMORY_UNITS: dict[str, float] = {
    "bytes": 1e-6,
    "kB": 1e-3,
    "KiB": 1024 / 1e6,
    "MB": 1.0,
    "MiB": 1024**2 / 1e6,
    "GB": 1e3,
    "GiB": 1024**3 / 1e6,
}
_SPELLINGS = {
    "b": "bytes", "byte": "bytes", "kb": "kB", "kib": "KiB", "mb": "MB", "mib": "MiB", "gb": "GB", "gib": "GiB",
    "sec": "s", "second": "s", "seconds": "s", "msec": "ms", "millisecond": "ms", "milliseconds": "ms",
    "microsecond": "us", "microseconds": "us", "μs": "us", "nanosecond": "ns", "nanoseconds": "ns", "minutes": "min",
}  # fmt: skip
_QUANTITY = re.compile(r"\s*~?([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([^\W\d_]*)\s*")


def milliseconds(value: float, unit: str) -> float:
    """Return a time of ``unit`` in ms.

    Raises:
        ValueError: The unit is not one of ``TIME_UNITS``.
    """
    return value * _factor(unit, TIME_UNITS, "time")


def megabytes(value: float, unit: str) -> float:
    """Return a size of ``unit`` in MB (1e6 bytes); MiB and GiB are powers of 1024.

    Raises:
        ValueError: The unit is not one of ``MEMORY_UNITS``.
    """
    return value * _factor(unit, MEMORY_UNITS, "memory")


def quantity(text: str) -> tuple[float, str]:
    """Split ``75.6 ms`` into number and unit; the unit is empty where there is none, as in ``3,442``.

    Raises:
        ValueError: It is no number with at most one unit behind it.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None or not match[1]:
        raise ValueError(f"must be a number, with or without a unit, got {text!r}")
    number = float(match[1].replace(",", ""))
    if not isfinite(number):
        raise ValueError(f"must be finite, got {text!r}")
    return number, match[2]


def _factor(unit: str, known: dict[str, float], kind: str) -> float:
    name = unit.strip()
    name = name if name in known else _SPELLINGS.get(name.lower(), name.lower())
    if name not in known:
        raise ValueError(f"unknown {kind} unit {unit!r}; known are {', '.join(known)}")
    return known[name]


def significant(value: float, digits: int = 3) -> str:
    """Return ``value`` rounded to ``digits`` significant digits: ``1,230``, ``0.0457``; below 1e-5 as ``2.8e-09``."""
    if value == 0:
        return "0"
    if abs(value) < 1e-5:
        return f"{value:.{digits - 1}g}"
    exponent = floor(log10(abs(value)))
    rounded = round(value, digits - 1 - exponent)
    if rounded != 0 and floor(log10(abs(rounded))) > exponent:  # 9.996 became 10.00
        exponent += 1
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}"


def latency(milliseconds: float | None) -> str:
    """Return a time in ms, or in s from 1000 ms on."""
    if milliseconds is None:
        return ABSENT
    if abs(milliseconds) >= 1000:
        return f"{significant(milliseconds / 1000)} s"
    return f"{significant(milliseconds)} ms"


def memory(megabytes: float | None) -> str:
    """Return a memory size in MB (1e6 bytes), or in GB from 1000 MB on."""
    if megabytes is None:
        return ABSENT
    if abs(megabytes) >= 1000:
        return f"{significant(megabytes / 1000)} GB"
    return f"{significant(megabytes)} MB"


def count(number: float | None) -> str:
    """Return a count: exact below 10,000, then in thousands (k), millions (M) or billions (B)."""
    if number is None:
        return ABSENT
    for size, letter in ((1e9, " B"), (1e6, " M"), (1e4, " k")):
        if abs(number) >= size:
            return f"{significant(number / min(size, 1e3 if letter == ' k' else size))}{letter}"
    return f"{number:,.0f}"


def ratio(value: float | None) -> str:
    """Return a ratio as a percentage: 0.083 is ``8.3 %``; tiny ones are not told apart."""
    if value is None:
        return ABSENT
    if 0 < abs(value) < 1e-4:
        return "below 0.01 %"
    return f"{significant(100 * value, 3 if abs(value) >= 1 else 2)} %"


def duration(seconds: float | None) -> str:
    """Return a duration in s, min or h."""
    if seconds is None:
        return ABSENT
    if seconds < 90:
        return f"{significant(seconds, 2 if seconds < 10 else 3)} s"
    if seconds < 5400:
        return f"{significant(seconds / 60, 2)} min"
    return f"{significant(seconds / 3600, 2)} h"


def interval(range_: Interval | None, scale: float = 1.0) -> str:
    """Return ``3.8-4.4, 90 %`` (with a dash) with both ends divided by ``scale``."""
    if range_ is None:
        return ""
    ends = f"{significant(range_.low / scale)}–{significant(range_.high / scale)}"  # noqa: RUF001  # a range's dash
    return f"{ends}, {range_.coverage:.0%}".replace("%", " %")


def latency_with_interval(milliseconds: float, range_: Interval | None, origin: str) -> str:
    """Return ``4.1 s (3.8-4.4, 90 %, predicted)``; the interval is in the unit of the value."""
    scale = 1000.0 if abs(milliseconds) >= 1000 else 1.0
    return f"{latency(milliseconds)} ({_join(interval(range_, scale), origin)})"


def memory_with_interval(megabytes: float, range_: Interval | None, origin: str) -> str:
    """Return ``35.6 MB (34.1-38.0, 90 %, predicted)``; the interval is in the unit of the value."""
    scale = 1000.0 if abs(megabytes) >= 1000 else 1.0
    return f"{memory(megabytes)} ({_join(interval(range_, scale), origin)})"


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def probability(value: float) -> str:
    """Return a probability with three digits; never 1, which no error model can tell."""
    return ">0.999" if value >= 0.9995 else f"{value:.3f}"


def budget_words(budget: Budget | DeviceBudget) -> str:
    """Return the limits of a budget in words, empty where it has none."""
    parts = []
    if budget.latency_ms is not None:
        parts.append(f"latency at most {latency(budget.latency_ms)}")
    if budget.peak_memory_mb is not None:
        parts.append(f"peak memory at most {memory(budget.peak_memory_mb)}")
    parameters = getattr(budget, "parameters", None)
    if parameters is not None:
        parts.append(f"at most {count(parameters)} parameters")
    if budget.package_mb is not None:
        parts.append(f"package at most {memory(budget.package_mb)}")
    if budget.runs_on:
        parts.append(f"every block on {' or '.join(budget.runs_on)}")
    if budget.probability is not None:
        parts.append(f"kept with probability {budget.probability:g}")
    return ", ".join(parts)
