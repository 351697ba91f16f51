"""An audit in words: what is wrong first, then the operations that cost most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.core.units import latency, memory, ratio

UNIT_WORDS = {"neural_engine": "Neural Engine", "gpu": "GPU", "cpu": "CPU"}
_SHORT = {"neural_engine": "NE", "gpu": "GPU", "cpu": "CPU"}
_FEW = 6
DENOISER = "denoiser.mlpackage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """``export/<digest>/audit.json``; what is said of each package stays plain data."""

    device: str
    chip: str
    compute_units: str
    packages: tuple[Mapping[str, Any], ...]
    described: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSection:
    """One package of an audit as a page shows it.

    Attributes:
        package: Name of the package.
        lines: Main findings.
        refusals: Unit, what is refused, how often, first place, rule and source.
        risks: Unit, text, how often, rule and source.
        operations: Share and time, unit, eligible units, operation and result of those that take most time.
    """

    package: str
    lines: tuple[str, ...]
    refusals: tuple[tuple[str, ...], ...]
    risks: tuple[tuple[str, ...], ...]
    operations: tuple[tuple[str, ...], ...]


def audit_sections(audit: Audit, *, top: int = 10) -> tuple[AuditSection, ...]:
    """Return what a page shows of an audit, a section a package.

    Raises:
        ValueError: Something that every audit has is not there.
    """
    try:
        described = described_lines({"packages": audit.packages, "described": audit.described})
        return tuple(
            _section(package, top, described if package["package"] == DENOISER else ()) for package in audit.packages
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"is not built as an audit: {type(error).__name__} {error}") from error


def _section(package: Mapping[str, Any], top: int, more: Sequence[str]) -> AuditSection:
    return AuditSection(
        package=package["package"],
        lines=(*headlines(package), *more),
        refusals=tuple(
            (
                UNIT_WORDS[item["unit"]],
                f"{item['count']} x {item['type']}",
                item["reason"],
                item["first"],
                item["rule"],
                item["source"],
            )
            for item in package["refusals"]
        ),
        risks=tuple(
            (UNIT_WORDS[note["unit"]], note["text"], str(note["count"]), note["rule"], note["source"])
            for note in package["notes"]
        ),
        operations=tuple(_row(item) for item in worst(package, top)),
    )


def audit_text(audit: Mapping[str, Any], *, top: int) -> str:
    """Return the whole audit as text, with the ``top`` operations that take most of the time."""
    head = f"Audit for {audit['device']} ({audit['chip']}), {audit['compute_units']}: static, nothing was run."
    parts = [head, *described_lines(audit)]
    for package in audit["packages"]:
        parts += ["", *_package_lines(package, top)]
    return "\n".join(parts)


def described_lines(audit: Mapping[str, Any]) -> list[str]:
    """Return the predictor's memory of the denoiser beside the program's; nothing where it was not asked."""
    described = audit.get("described")
    own = [item for item in audit["packages"] if item["package"] == DENOISER]
    if not described or not own:
        return []
    peak, predicted = own[0]["memory"]["activation_peak_bytes"], described["activation_peak_bytes"]
    return [
        f"Denoiser by its description ({described['lowering']}): activations {memory(predicted / 1e6)} at the peak "
        f"(predicted), the program needs {memory(peak / 1e6)}, {peak / predicted:.3f} times that"
    ]


def headlines(package: Mapping[str, Any]) -> list[str]:
    """Return the main findings on one package, a line each."""
    summary, space = package["summary"], package["memory"]
    home = UNIT_WORDS[summary["home_unit"]]
    away = summary["operations"] - summary["on_home_unit"]
    whole = "every operation is" if not away else f"{away} of {summary['operations']} operations are not"
    lines = [
        f"{home}: {whole} eligible; {summary['segments']} segment{'s' if summary['segments'] > 1 else ''}, "
        f"{summary['crossings']} crossings; {ratio(summary['home_time_ratio'])} of the time on it",
        f"One call {latency(summary['time_ms'])} by the uncalibrated prior, of it {latency(summary['switching_ms'])} "
        "for the call and for switching units (predicted)",
        f"Memory: activations {memory(space['activation_peak_bytes'] / 1e6)} at the peak "
        f"({memory(space['padded_peak_bytes'] / 1e6)} in rows of 64 bytes), at {space['activation_peak_at']}; weights "
        f"{memory(space['weight_bytes'] / 1e6)} stored, {memory(space['decompressed_bytes'] / 1e6)} expanded",
        "In memory at least: "
        + ", ".join(f"{UNIT_WORDS[unit['unit']]} {memory(unit['least_bytes'] / 1e6)}" for unit in space["units"]),
        f"Padding of last axes to 64 bytes: {memory(summary['padding_bytes'] / 1e6)} on "
        f"{memory(summary['stored_bytes'] / 1e6)} of results ({ratio(summary['padding_ratio'])})",
        f"Layout: {summary['layout_copies']} transposes move {memory(summary['layout_copy_bytes'] / 1e6)} in "
        f"{latency(summary['layout_copy_ms'])}; {summary['row_changes']} reshapes change the last axis",
    ]
    if summary["nowhere"]:
        lines.append(f"{summary['nowhere']} operations run on no unit")
    return lines


def refusal_line(refusal: Mapping[str, Any]) -> str:
    """Return one group of refusals as a line."""
    return (
        f"{UNIT_WORDS[refusal['unit']]}: {refusal['count']} x {refusal['type']}: {refusal['reason']} "
        f"[{refusal['rule']}], first {refusal['first']}"
    )


def worst(package: Mapping[str, Any], top: int) -> list[Mapping[str, Any]]:
    """Return the operations that take most of the time."""
    return sorted(package["operations"], key=lambda item: -item["time_ms"])[:top]


def _package_lines(package: Mapping[str, Any], top: int) -> list[str]:
    home = package["summary"]["home_unit"]
    lines = [package["package"], *(f"  {line}" for line in headlines(package))]
    own = [item for item in package["refusals"] if item["unit"] == home]
    others = [item for item in package["refusals"] if item["unit"] != home]
    if own or others:
        lines += ["  Not eligible:"]
        lines += [f"    {refusal_line(item)}" for item in (*own[:_FEW], *others[:_FEW])]
        lines += [f"    source: {source}" for source in dict.fromkeys(item["source"] for item in own[:_FEW])]
    wasteful = sorted(package["operations"], key=lambda item: -item["padding_bytes"])[:3]
    if wasteful and wasteful[0]["padding_bytes"]:
        lines += ["  Most padding:"]
        lines += [
            f"    {item['type']} {item['name']!r} {_shapes(item)}: {memory(item['padding_bytes'] / 1e6)}"
            for item in wasteful
            if item["padding_bytes"]
        ]
    if package["notes"]:
        lines += ["  Risks:"]
        lines += [
            f"    {UNIT_WORDS[note['unit']]}: {note['text']} ({note['count']} operations, first {note['first']}) "
            f"[{note['rule']}]"
            for note in package["notes"]
        ]
    return [*lines, *_table(worst(package, top))] if top else lines


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells: list[tuple[str, ...]] = [("share", "time", "unit", "eligible", "operation", "result")]
    cells += [_row(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  Operations by estimated time (prior):",
        *(
            "    " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ),
    ]


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        ratio(row["time_share_ratio"]),
        latency(row["time_ms"]),
        _SHORT[row["unit"]],
        " ".join(_SHORT[unit] for unit in row["eligible"]) or "none",
        f"{row['type']} {row['name']}",
        _shapes(row),
    )


def _shapes(row: Mapping[str, Any]) -> str:
    counts = Counter(f"({', '.join(map(str, shape))})" for shape in row["shapes"])
    return (
        " ".join(text if number == 1 else f"{number} x {text}" for text, number in counts.items()) + f" {row['dtype']}"
    )
