"""Plots of what drove a search: variance by slot, and what moved limits buy.

plotly is imported inside functions: it costs half a second and only a report needs it.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from nas.core.explanation_words import move_words, words
from nas.core.units import ratio
from nas.report.plots import BLUE, GREEN, GREY, ORANGE, plain_layout

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from nas.core.explanation import BudgetStep, Explanation

LIMITS = {"latency_ms": ("latency", BLUE), "peak_memory_mb": ("peak memory", GREEN)}


def slots_plot(explanation: Explanation) -> go.Figure:
    """Share of the variance that each slot decides, of latency, memory and quality; quality with its interval."""
    import plotly.graph_objects as go

    names = [escape(item.slot) for item in explanation.slots]
    plot = go.Figure()
    for title, colour, shares in (
        ("latency", BLUE, [item.latency_share for item in explanation.slots]),
        ("peak memory", GREEN, [item.memory_share for item in explanation.slots]),
        ("quality", ORANGE, [item.quality_share.mean for item in explanation.slots]),
    ):
        plot.add_trace(
            go.Bar(
                y=names,
                x=[100 * share for share in shares],
                orientation="h",
                name=title,
                marker={"color": colour},
                error_x=_quality_errors(explanation) if title == "quality" else None,
                customdata=[ratio(share) for share in shares],
                hovertemplate="%{y}: %{customdata}<extra>%{fullData.name}</extra>",
            )
        )
    plot.update_layout(plain_layout(height=120 + 52 * len(names), x_title="% of the variance", y_title=""))
    plot.update_layout(barmode="group", bargap=0.3)
    plot.update_yaxes(autorange="reversed", dtick=1)
    return plot


def _quality_errors(explanation: Explanation) -> dict[str, object]:
    shares = [item.quality_share for item in explanation.slots]
    return {
        "type": "data",
        "symmetric": False,
        "array": [100 * (share.high - share.mean) for share in shares],
        "arrayminus": [100 * (share.mean - share.low) for share in shares],
        "thickness": 1.2,
        "width": 3,
        "color": GREY,
    }


def steps_plot(explanation: Explanation) -> go.Figure | None:
    """Quality gained or lost by moving each limit, with its interval; None where no limit can be moved."""
    import plotly.graph_objects as go

    shown = [step for step in explanation.budgets if step.quality is not None]
    if not shown:
        return None
    plot = go.Figure()
    for limit, (title, colour) in LIMITS.items():
        steps = [step for step in shown if step.limit == limit]
        if steps:
            plot.add_trace(_steps_trace(go, steps, title, colour))
    height, title = 330, "change of the limit, %"
    plot.update_layout(plain_layout(height=height, x_title=title, y_title="quality against the present budget"))
    plot.update_yaxes(zeroline=True, zerolinecolor=GREY, zerolinewidth=1)
    return plot


def _steps_trace(go: object, steps: list[BudgetStep], title: str, colour: str) -> go.Scatter:
    qualities = [step.quality for step in steps if step.quality is not None]
    return go.Scatter(  # type: ignore[attr-defined]  # the module, imported by the caller
        x=[100 * step.change_ratio for step in steps],
        y=[quality.mean for quality in qualities],
        mode="lines+markers",
        name=title,
        line={"color": colour, "width": 1.5},
        marker={"color": colour, "size": 7},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [quality.high - quality.mean for quality in qualities],
            "arrayminus": [quality.mean - quality.low for quality in qualities],
            "thickness": 1.2,
            "width": 4,
        },
        customdata=[f"{move_words(step)}: {words(quality)}" for step, quality in zip(steps, qualities, strict=True)],
        hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
    )
