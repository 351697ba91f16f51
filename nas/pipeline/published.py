"""``nas compare-published``: the phones' priors over networks of published latency, shown whatever it says."""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING, Any

from latency_models import device
from latency_models.rates import prior_ms
from nas.core.units import significant
from nas.pipeline.published_relations import Relation, relations
from nas.pipeline.published_rows import Row, read_table, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def compare_published(folder: Path | None) -> dict[str, Any]:
    """Predict every published time of a described network, and the relations between them.

    Nothing is fitted: rates, overheads and limits are those of the devices' files.

    Args:
        folder: Holds a table of published figures; None for the one that comes with the toolkit.

    Returns:
        Plain data: ``rows``, ``relations``, ``left_out`` and ``summary``.

    Raises:
        InputError: There is no table, or it is damaged.
    """
    path, lines = read_table(folder)
    rows, left_out = rows_of(lines, where=str(path))
    shown = [_shown(row) for row in rows]
    return {
        "schema": "nas/published_comparison/1",
        "table": path.name,
        "rows": shown,
        "summary": _summary(shown),
        "relations": [_relation(item) for item in relations(rows)],
        "left_out": [{"reason": item.reason, "rows": item.count, "models": list(item.models)} for item in left_out],
    }


def ratios(values: Sequence[float]) -> str:
    """Return times relative to the last, ``2.29 : 1.37 : 1``; of a single one the time itself."""
    if len(values) == 1:
        return f"{values[0]:,.0f} ms"
    return " : ".join(f"{value / values[-1]:.2f}" for value in values[:-1]) + " : 1"


def times(values: Sequence[float]) -> str:
    """Return times in ms."""
    return ", ".join(significant(value) if value < 1000 else f"{value:,.0f}" for value in values)


def markdown(result: dict[str, Any]) -> str:
    """Return a comparison as Markdown; it is readable as plain text too."""
    summary = result["summary"]
    lines = ["# Published latencies against the phones' priors", "", *_summary_lines(summary), ""]
    lines += [
        "| published as | predicted as | device | published ms | prior ms | ratio | within stated factor | assumed "
        "| source |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['model']} | {row['network']} | {row['device']} | {times([row['published_ms']])} | "
        f"{times([row['predicted_ms']])} | "
        f"{row['ratio']:.2f} | {'yes' if row['inside'] else 'no'} | {row['assumed'] or 'nothing'} | "
        f"{row['source']} ({row['confidence']}) |"
        for row in result["rows"]
    ]
    lines += [
        "",
        "## Nine relations within one source each",
        "",
        "Times relative to the last of each row; same order says whether the prior orders them as published.",
        "",
        "| relation | published | prior | same order | assumed |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['name']} | {ratios(row['published_ms'])} | {ratios(row['predicted_ms'])} | {row['same_order']} | "
        f"{row['assumed'] or 'nothing'} |"
        if row["published_ms"]
        else f"| {row['name']} | - | - | - | {row['missing']} |"
        for row in result["relations"]
    ]
    lines += ["", "## Rows of the table that are not predicted", ""]
    lines += [f"- {item['rows']}: {item['reason']} ({_few(item['models'])})" for item in result["left_out"]]
    return "\n".join(lines) + "\n"


def _summary_lines(summary: dict[str, Any]) -> list[str]:
    if not summary["rows"]:
        return ["No row of the table is of a network and a device that are described here."]
    order = summary["rank_correlation"]
    return [
        f"{summary['rows']} rows of {summary['sources']} sources; predicted over published "
        f"{summary['median_ratio']:.2f} in the median, off by a factor of {summary['median_factor']:.2f} (median) and "
        f"{summary['worst_factor']:.2f} (worst); {summary['within_2']} within a factor of 2, "
        f"{summary['within_stated']} within the factor that the devices' files state; rank correlation "
        f"{'not defined' if order is None else format(order, '.2f')}.",
        "",
        "Published figures are other people's; predictions are the uncalibrated prior's (nothing is fitted to any of",
        "these rows here). The same network on the same chip is published with times that differ by 4 to 5 between",
        "sources, so ratios within one source say more than single rows.",
    ]


def _shown(row: Row) -> dict[str, Any]:
    predicted = prior_ms(row.sample)
    factor = device(row.device).prior_factor.value
    return {
        "model": row.model,
        "network": row.network,
        "device": row.device,
        "compute_units": row.sample.compute_units,
        "published_ms": row.ms,
        "predicted_ms": predicted,
        "ratio": predicted / row.ms,
        "stated_factor": factor,
        "inside": 1 / factor <= predicted / row.ms <= factor,
        "weights": {"bits": row.weights.bits, "form": row.weights.form},
        "source": row.source,
        "confidence": row.confidence,
        "assumed": row.assumed,
        "origin": "predicted",
    }


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    import numpy as np

    errors = np.array([log(row["ratio"]) for row in rows])
    if not rows:
        return {"rows": 0}
    return {
        "rows": len(rows),
        "sources": len({row["source"].split(" table")[0].split(" fig")[0] for row in rows}),
        "median_ratio": exp(float(np.median(errors))),
        "median_factor": exp(float(np.median(np.abs(errors)))),
        "worst_factor": exp(float(np.abs(errors).max())),
        "within_2": int((np.abs(errors) <= log(2.0)).sum()),
        "within_stated": sum(row["inside"] for row in rows),
        "rank_correlation": _rank_correlation(rows),
    }


def _rank_correlation(rows: Sequence[dict[str, Any]]) -> float | None:
    from scipy.stats import spearmanr

    if len(rows) < 3:
        return None
    found = spearmanr([row["published_ms"] for row in rows], [row["predicted_ms"] for row in rows])
    return float(found.statistic)


def _relation(item: Relation) -> dict[str, Any]:
    published = [row.ms for row in item.rows]
    predicted = [prior_ms(row.sample) for row in item.rows]
    order = [sorted(range(len(values)), key=values.__getitem__) for values in (published, predicted)]
    return {
        "name": item.name,
        "networks": [f"{row.network} on {row.device}" for row in item.rows],
        "published_ms": published,
        "predicted_ms": predicted,
        "same_order": "-" if len(published) < 2 else "yes" if order[0] == order[1] else "no",
        "assumed": item.assumed,
        "missing": item.missing,
    }


def _few(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
