"""The split of a generation: text encoder, denoising steps, decoder and what lies between, for networks of the front.

plotly is imported inside functions: it costs half a second and only a report needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.cost import PhaseCost
from nas.core.units import latency, latency_with_interval
from nas.report.plots import BLUE, GREEN, GREY, ORANGE, plain_layout

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from nas.core.evaluation import Evaluation
    from nas.runs.front import FrontFile

PHASE_COLOURS = {"text_encoder": GREEN, "denoiser": BLUE, "decoder": ORANGE, "overhead": GREY}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationBar:
    """One network's generation; ``phases`` sum to ``latency_ms``, and their intervals' ends to its interval."""

    digest: str
    role: str
    latency_ms: float
    low_ms: float
    high_ms: float
    phases: tuple[PhaseCost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasesFigure:
    """Generations of the chosen, the fastest and the best network; the chosen one comes first."""

    bars: tuple[GenerationBar, ...]
    budget_latency_ms: float | None
    device: str

    @property
    def chosen(self) -> GenerationBar:
        """The chosen network's generation."""
        return self.bars[0]


def phases_figure(front: FrontFile | None) -> PhasesFigure | None:
    """Return the split of the front's most telling networks; None where files do not have it, as older ones."""
    if front is None or not front.members:
        return None
    chosen = next((item for item in front.members if item.architecture.digest == front.selected), front.members[0])
    if not chosen.cost.phases:
        return None
    fastest = min(front.members, key=lambda item: item.cost.latency_ms)
    best = max(front.members, key=lambda item: item.quality.score if item.quality else float("-inf"))
    roles: dict[str, tuple[Evaluation, list[str]]] = {}
    for item, role in ((chosen, "chosen"), (fastest, "fastest"), (best, "best")):
        roles.setdefault(item.architecture.digest, (item, []))[1].append(role)
    return PhasesFigure(
        bars=tuple(_bar(item, ", ".join(names)) for item, names in roles.values() if item.cost.phases),
        budget_latency_ms=front.budget.latency_ms,
        device=chosen.cost.device,
    )


def _bar(item: Evaluation, role: str) -> GenerationBar:
    cost = item.cost
    return GenerationBar(
        digest=item.architecture.digest,
        role=role,
        latency_ms=cost.latency_ms,
        low_ms=cost.latency_interval_ms.low,
        high_ms=cost.latency_interval_ms.high,
        phases=cost.phases,
    )


def phase_title(phase: PhaseCost) -> str:
    """Return the phase in words, with its calls: ``4 x denoiser``."""
    name = phase.phase.replace("_", " ")
    return f"{phase.calls} x {name}" if phase.calls > 1 else name


def phases_plot(figure: PhasesFigure) -> go.Figure:
    """One stacked bar a network, the interval of the whole at its end, and the latency budget as a line."""
    import plotly.graph_objects as go

    plot = go.Figure()
    names = [f"{bar.role} {bar.digest[:8]}" for bar in figure.bars]
    for phase, colour in PHASE_COLOURS.items():
        parts = [next((item for item in bar.phases if item.phase == phase), None) for bar in figure.bars]
        if not any(parts):
            continue
        plot.add_trace(
            go.Bar(
                y=names,
                x=[part.latency_ms if part else 0.0 for part in parts],
                orientation="h",
                name=next(phase_title(part) for part in parts if part),
                marker={"color": colour},
                customdata=[
                    latency_with_interval(part.latency_ms, part.latency_interval_ms, part.origin) if part else ""
                    for part in parts
                ],
                hovertemplate="%{y}: %{customdata}<extra>%{fullData.name}</extra>",
            )
        )
    plot.add_trace(
        go.Scatter(
            x=[bar.latency_ms for bar in figure.bars],
            y=names,
            mode="markers",
            name="whole, with its interval",
            marker={"color": GREY, "size": 7, "symbol": "diamond"},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [bar.high_ms - bar.latency_ms for bar in figure.bars],
                "arrayminus": [bar.latency_ms - bar.low_ms for bar in figure.bars],
                "thickness": 1.5,
                "width": 5,
            },
            customdata=[[latency(bar.latency_ms), latency(bar.low_ms), latency(bar.high_ms)] for bar in figure.bars],
            hovertemplate="%{y}: %{customdata[0]} (%{customdata[1]} to %{customdata[2]})<extra></extra>",
        )
    )
    if figure.budget_latency_ms is not None:
        plot.add_trace(
            go.Scatter(
                x=[figure.budget_latency_ms] * 2,
                y=[names[0], names[-1]],
                mode="lines" if len(names) > 1 else "markers",
                name=f"budget {latency(figure.budget_latency_ms)}",
                marker={"symbol": "line-ns-open", "size": 26},
                line={"color": GREY, "dash": "dash"},
                hoverinfo="skip",
            )
        )
    plot.update_layout(plain_layout(height=170 + 42 * len(names), x_title="ms over one generation", y_title=""))
    plot.update_layout(barmode="stack", bargap=0.35, showlegend=True)
    plot.update_yaxes(autorange="reversed")
    return plot
