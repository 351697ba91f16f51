"""Plotly figures of the report's numbers; colours of text and grid are set by the page, so that it can be dark.

plotly is imported inside functions: it costs half a second and only a report needs it.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from nas.core.units import count, latency, memory, ratio, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go

    from nas.report.breakdown import BreakdownFigure
    from nas.report.figures import AgreementFigure, Candidate, CurveFigure, ParetoFigure

# Mid tones with at least 3:1 contrast on both the white and the dark page; told apart by the colour-blind.
BLUE = "#3b7dd8"
ORANGE = "#c9711a"
GREEN = "#2f9e6e"
GREY = "#868e96"
FAINT = "rgba(134,142,150,0.55)"
MOST_INTERVALS = 30
ROLE_COLOURS = {
    "temporal": ORANGE,
    "backbone": BLUE,
    "other phase": GREEN,
    "overhead": GREY,
    "correction": GREY,
}


def pareto_plot(figure: ParetoFigure) -> go.Figure:
    """Quality against latency, memory as colour; the chosen point ringed, others and screened ones faint."""
    import plotly.graph_objects as go

    scale, unit = _time_scale([*figure.front, *figure.others, *figure.screened])
    plot = go.Figure()
    _add_faint(plot, figure, scale)
    if figure.steps:
        plot.add_trace(
            go.Scatter(
                x=[point.latency_ms / scale for point in figure.steps],
                y=[point.quality for point in figure.steps],
                mode="lines",
                name="best quality within a latency",
                line={"color": FAINT, "width": 1.5, "shape": "hv"},
                hoverinfo="skip",
            )
        )
    if figure.front:
        plot.add_trace(_front_trace(figure.front, scale, selected=figure.selected))
    chosen = [point for point in figure.front if point.digest == figure.selected]
    if chosen:
        plot.add_trace(
            go.Scatter(
                x=[point.latency_ms / scale for point in chosen],
                y=[point.quality for point in chosen],
                mode="markers",
                name="chosen",
                marker={"symbol": "circle-open", "size": 22, "line": {"width": 3}, "color": ORANGE},
                hoverinfo="skip",
            )
        )
    if figure.budget_latency_ms is not None:
        # A trace, not a shape: it appears in the legend and follows a change of theme.
        plot.add_trace(_budget_trace(figure, scale))
    layout = plain_layout(height=460, x_title=f"latency of one generation, {unit} ({figure.origin})", y_title="quality")
    plot.update_layout(layout)
    return plot


def breakdown_plot(figure: BreakdownFigure, quantity: str) -> go.Figure:
    """Horizontal bars per block in execution order; ``quantity`` is ``latency`` or ``memory``."""
    import plotly.graph_objects as go

    plot = go.Figure()
    names = [escape(item.block) for item in figure.blocks]
    for role, colour in ROLE_COLOURS.items():
        items = [item for item in figure.blocks if item.role == role]
        if not items:
            continue
        values = [item.latency_ms if quantity == "latency" else item.memory_mb for item in items]
        texts = [latency(value) if quantity == "latency" else memory(value) for value in values]
        plot.add_trace(
            go.Bar(
                y=[escape(item.block) for item in items],
                x=values,
                orientation="h",
                name=role,
                marker={"color": colour},
                customdata=texts,
                hovertemplate="%{y}: %{customdata}<extra></extra>",
            )
        )
    unit = "ms over one generation" if quantity == "latency" else "MB while it runs"
    layout = plain_layout(height=120 + 17 * len(names), x_title=f"{unit} ({figure.origin})", y_title="")
    plot.update_layout(layout)
    plot.update_layout(bargap=0.25, barmode="overlay")
    plot.update_yaxes(categoryorder="array", categoryarray=names, autorange="reversed", dtick=1, tickfont={"size": 11})
    return plot


def agreement_plot(figure: AgreementFigure) -> go.Figure:
    """Predicted (with interval) against measured, and the diagonal where both are equal."""
    import plotly.graph_objects as go

    plot = go.Figure()
    values = [value for point in figure.points for value in (point.measured, point.low, point.high, point.predicted)]
    ends = [min(values) * 0.95, max(values) * 1.05]
    plot.add_trace(
        go.Scatter(x=ends, y=ends, mode="lines", name="equal", line={"color": GREY, "dash": "dot"}, hoverinfo="skip")
    )
    for name, covered, colour, symbol in (
        ("inside its interval", True, BLUE, "circle"),
        ("outside its interval", False, ORANGE, "x"),
    ):
        points = [point for point in figure.points if point.covered is covered]
        if not points:
            continue
        plot.add_trace(
            go.Scatter(
                x=[point.measured for point in points],
                y=[point.predicted for point in points],
                mode="markers",
                name=name,
                marker={"color": colour, "symbol": symbol, "size": 8},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [max(0.0, point.high - point.predicted) for point in points],
                    "arrayminus": [max(0.0, point.predicted - point.low) for point in points],
                    "thickness": 1.2,
                    "width": 3,
                },
                customdata=[
                    [
                        escape(point.label),
                        _amount(point.measured, figure.unit),
                        _amount(point.predicted, figure.unit),
                        _amount(point.low, figure.unit),
                        _amount(point.high, figure.unit),
                        ratio(point.error_ratio),
                    ]
                    for point in points
                ],
                hovertemplate=(
                    "%{customdata[0]}<br>measured %{customdata[1]}<br>predicted %{customdata[2]}"
                    " (%{customdata[3]} to %{customdata[4]})<br>error %{customdata[5]}<extra></extra>"
                ),
            )
        )
    plot.update_layout(
        plain_layout(height=400, x_title=f"measured, {figure.unit}", y_title=f"predicted, {figure.unit}")
    )
    return plot


def curve_plot(figure: CurveFigure) -> go.Figure:
    """Loss and other logged values over the steps of one stage; values other than losses start hidden."""
    import plotly.graph_objects as go

    plot = go.Figure()
    palette = (BLUE, ORANGE, GREEN, "#9c5fd4", "#c2476b", GREY)
    for index, curve in enumerate(figure.curves):
        plot.add_trace(
            go.Scatter(
                x=list(curve.steps),
                y=list(curve.values),
                mode="lines" if len(curve.values) > 1 else "markers",
                name=escape(curve.name),
                line={"color": palette[index % len(palette)], "width": 2 if index == 0 else 1.5},
                visible=True if index == 0 or "loss" in curve.name else "legendonly",
                hovertemplate="step %{x:,}: %{y:.3g}<extra>" + escape(curve.name) + "</extra>",
            )
        )
    plot.update_layout(plain_layout(height=300, x_title="step", y_title=""))
    losses = [value for curve in figure.curves[:1] for value in curve.values]
    if losses and min(losses) > 0 and max(losses) / min(losses) > 5:
        plot.update_yaxes(type="log", minorloglabels="complete")
    plot.update_layout(showlegend=True)
    return plot


def _add_faint(plot: go.Figure, figure: ParetoFigure, scale: float) -> None:
    import plotly.graph_objects as go

    others = [point for point in figure.others if point.quality is not None]
    if others:
        plot.add_trace(
            go.Scatter(
                x=[point.latency_ms / scale for point in others],
                y=[point.quality for point in others],
                mode="markers",
                name="other candidates",
                marker={"color": FAINT, "size": 6},
                customdata=[_hover(point) for point in others],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    if figure.screened:
        qualities = [point.quality for point in (*figure.front, *others) if point.quality is not None]
        floor = min(qualities) - 0.08 * ((max(qualities) - min(qualities)) or 1.0) if qualities else 0.0
        plot.add_trace(
            go.Scatter(
                x=[point.latency_ms / scale for point in figure.screened],
                y=[floor] * len(figure.screened),
                mode="markers",
                name="screened out (no quality paid for)",
                marker={"symbol": "line-ns-open", "size": 10, "color": FAINT},
                customdata=[_hover(point) for point in figure.screened],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )


def _front_trace(points: Sequence[Candidate], scale: float, *, selected: str | None) -> go.Scatter:
    import plotly.graph_objects as go

    # More bars than this hide the points; then only the chosen one keeps its own.
    shown = [len(points) <= MOST_INTERVALS or point.digest == selected for point in points]
    above = [max(0.0, point.latency_high_ms - point.latency_ms) / scale for point in points]
    below = [max(0.0, point.latency_ms - point.latency_low_ms) / scale for point in points]
    memories = [point.peak_memory_mb for point in points]
    return go.Scatter(
        x=[point.latency_ms / scale for point in points],
        y=[point.quality for point in points],
        mode="markers",
        name="Pareto front",
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [end * draw for end, draw in zip(above, shown, strict=True)],
            "arrayminus": [end * draw for end, draw in zip(below, shown, strict=True)],
            "thickness": 1,
            "width": 0,
            "color": FAINT,
        },
        marker={
            "size": 11,
            "color": memories,
            "colorscale": "Viridis",
            "showscale": True,
            "line": {"width": 1, "color": GREY},
            "colorbar": {
                "title": {"text": "peak memory, MB", "side": "top", "font": {"size": 13}},
                "orientation": "h",
                "thickness": 10,
                "len": 0.6,
                "x": 0.5,
                "y": -0.2,
                "yanchor": "top",
                "nticks": 5,
                "outlinewidth": 0,
            },
        },
        customdata=[_hover(point) for point in points],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _budget_trace(figure: ParetoFigure, scale: float) -> go.Scatter:
    import plotly.graph_objects as go

    assert figure.budget_latency_ms is not None  # the caller asked first
    qualities = [point.quality for point in (*figure.front, *figure.others) if point.quality is not None] or [0.0, 1.0]
    budget = figure.budget_latency_ms / scale
    return go.Scatter(
        x=[budget, budget],
        y=[min(qualities), max(qualities)],
        mode="lines",
        name=f"budget {latency(figure.budget_latency_ms)}",
        line={"color": "#c2476b", "dash": "dash", "width": 1.5},
        hoverinfo="name",
    )


def _hover(point: Candidate) -> str:
    lines = [f"<b>{escape(point.digest)}</b>"]
    if point.quality is not None:
        spread = f" ± {significant(point.quality_error, 2)}" if point.quality_error is not None else ""
        lines.append(f"quality {significant(point.quality)}{spread}")
    lines.append(f"{latency(point.latency_ms)} ({latency(point.latency_low_ms)} to {latency(point.latency_high_ms)})")
    lines.append(f"{memory(point.peak_memory_mb)}, {count(point.parameters)} parameters")
    lines += [escape(part) for part in _wrapped(point.summary.partition("; ")[2] or point.summary)]
    return "<br>".join(lines)


def _wrapped(text: str, width: int = 44) -> list[str]:
    from textwrap import wrap

    lines = wrap(text, width)
    return lines if len(lines) <= 8 else [*lines[:7], "…"]


def _time_scale(points: Sequence[Candidate]) -> tuple[float, str]:
    """Return the divisor and unit for a latency axis: seconds when the slowest point takes five or more."""
    slowest = max((point.latency_ms for point in points), default=0.0)
    return (1000.0, "s") if slowest >= 5000 else (1.0, "ms")


def _amount(value: float, unit: str) -> str:
    return latency(value) if unit == "ms" else memory(value)


def plain_layout(*, height: int, x_title: str, y_title: str) -> dict[str, Any]:
    """Return the layout all plots share: no background, no drag, the legend above."""
    import plotly.graph_objects as go

    axis = {"automargin": True, "zeroline": False, "ticks": "", "title": {"standoff": 10}}
    return {
        # The default template adds 7 kB of unused colours to every figure.
        "template": go.layout.Template(),
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 30, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12.5, "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"},
        "hovermode": "closest",
        # Dragging scrolls the page on a phone; the buttons zoom.
        "dragmode": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {**axis, "title": {"text": escape(x_title), "standoff": 8, "font": {"size": 13}}},
        "yaxis": {**axis, "title": {"text": escape(y_title), "standoff": 8, "font": {"size": 13}}},
    }
