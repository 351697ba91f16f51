"""One self-contained HTML page from a run directory: works offline, asks nothing of any other host.

jinja2 and plotly are imported inside functions: only a report needs them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.core import units
from nas.core.broken_limits import broken_limits
from nas.core.errors import InputError
from nas.core.explanation_words import change_words, move_words, words
from nas.core.files import write_text_atomically
from nas.report import facts, figures, plots
from nas.report.audit import AuditSection, audit_sections
from nas.report.breakdown import breakdown_figure
from nas.report.calibration import calibration_figures
from nas.report.clips import clips_of
from nas.report.explanation import slots_plot, steps_plot
from nas.report.origins import origins
from nas.report.phases import phase_title, phases_figure, phases_plot
from nas.report.run_files import FileFault, RunFiles, read_run
from nas.report.scenarios import scenario_rows, scenario_texts
from nas.report.tables import write_tables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import plotly.graph_objects as go

    from nas.report.figures import AgreementFigure

_WRITTEN_BY = {
    "search": "search",
    "calibration": "calibrate",
    "closed_loop": "closed_loop",
    "training": "train",
    "export": "export",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure as the page needs it: an id, what it shows in words, its height in px and its JSON."""

    name: str
    label: str
    height: int
    json: str


def build_report(run_dir: Path) -> Path:
    """Write ``report/index.html`` and ``report/tables/*.csv`` from the files of ``run_dir``; returns the page.

    A stage that has not run leaves a notice in its section; a damaged file is named and its section left out.

    Raises:
        InputError: ``run_dir`` is not a folder.
        UnavailableError: The page cannot be written.
    """
    files = read_run(run_dir)
    context = page_context(files)
    target = run_dir / "report" / "index.html"
    tables = write_tables(
        target.parent / "tables",
        files,
        agreements=context["agreements"],
        attributes=[table for table in context["attributes"] if table],
        origins=context["origins"],
    )
    context["tables"] = [path.relative_to(target.parent).as_posix() for path in tables]
    write_text_atomically(target, render(context))
    return target


def page_context(files: RunFiles) -> dict[str, Any]:
    """Return everything the template shows."""
    agreements, faults = _agreements(files)
    audits, audit_faults = _audits(files)
    config_run = files.config.get("run") if isinstance(files.config.get("run"), dict) else {}
    report = files.config.get("report") if isinstance(files.config.get("report"), dict) else {}
    return {
        "title": str((report or {}).get("title") or (config_run or {}).get("name") or files.run_dir.name),
        "headline": facts.headline(files),
        "front": files.front,
        "most_intervals": plots.MOST_INTERVALS,
        "broken_limits": broken_limits(files.evaluations),
        "pareto": _pareto(files),
        "pareto_rows": figures.pareto_figure(files.front, files.evaluations).front if files.front else (),
        "scenarios": scenario_rows(files.front),
        "scenario_texts": scenario_texts(files.front),
        "explanation": files.explanation,
        "explanation_plots": _explanation(files),
        "phases": phases_figure(files.front),
        "phases_plot": _phases(files),
        "breakdown": breakdown_figure(files.selected) if files.selected else None,
        "breakdown_plots": _breakdown(files),
        "agreements": agreements,
        "agreement_plots": [
            (item, _drawing(f"agreement-{index}", f"{item.title}: predicted, measured", plots.agreement_plot(item)))
            # Cross-validation and closed loop of one quantity stand beside each other.
            for index, item in enumerate(sorted(agreements, key=lambda item: item.unit != "ms"))
        ],
        "calibration": files.calibration,
        "closed_loop": files.closed_loop,
        "curves": _curves(files),
        "trained": files.trained,
        "attributes": [facts.attribute_table(run) for run in files.trained],
        "clips": [clips_of(files.run_dir, run) for run in files.trained],
        "exported": [(run, facts.export_facts(run)) for run in files.exported],
        "stages": files.stages,
        "total_seconds": sum(stage.seconds or 0.0 for stage in files.stages),
        "timeline": facts.timeline(files.stages),
        "audits": audits,
        "faults": (*files.faults, *faults, *audit_faults),
        "origins": origins(files, agreements),
        "manifest": _flat(files.manifest),
        "missing": _missing(files),
    }


def render(context: Mapping[str, Any]) -> str:
    """Fill the template; every value is escaped, the plotly library and the figures' JSON go in whole."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("nas.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        latency=units.latency,
        memory=units.memory,
        count=units.count,
        ratio=units.ratio,
        duration=units.duration,
        phase_title=phase_title,
        with_interval=lambda part: units.latency_with_interval(part.latency_ms, part.latency_interval_ms, part.origin),
        significant=units.significant,
        estimate=words,
        move=move_words,
        changes=change_words,
        # Inside <script> entities are not decoded: the JSON may go in whole once no tag can begin in it.
        script=lambda text: Markup(text.replace("<", "\\u003c")),
    )
    # plotly's own bundle holds no "</script", asserted here because a browser would end the script there.
    library = get_plotlyjs()
    assert "</script" not in library.lower()
    return environment.get_template("report.html.j2").render(**context, plotly=Markup(library))


def _pareto(files: RunFiles) -> Drawing | None:
    if not files.evaluations and not (files.front and files.front.members):
        return None
    figure = figures.pareto_figure(files.front, files.evaluations)
    label = f"Quality against latency: {len(figure.front)} front members, {len(figure.others)} other candidates"
    return _drawing("pareto", label, plots.pareto_plot(figure))


def _explanation(files: RunFiles) -> list[Drawing]:
    if files.explanation is None:
        return []
    drawings = [_drawing("drive-slots", "Share of the variance that each slot decides", slots_plot(files.explanation))]
    steps = steps_plot(files.explanation)
    if steps is not None:
        drawings.append(_drawing("drive-limits", "Quality that moved limits buy or take", steps))
    return drawings


def _phases(files: RunFiles) -> Drawing | None:
    figure = phases_figure(files.front)
    if figure is None:
        return None
    return _drawing("phases", "Time of one generation by phase, with its interval", phases_plot(figure))


def _breakdown(files: RunFiles) -> list[Drawing]:
    if files.selected is None:
        return []
    figure = breakdown_figure(files.selected)
    return [
        _drawing(f"blocks-{name}", f"{name.capitalize()} per block", plots.breakdown_plot(figure, name))
        for name in ("latency", "memory")
    ]


def _agreements(files: RunFiles) -> tuple[list[AgreementFigure], list[FileFault]]:
    found: list[AgreementFigure] = []
    faults: list[FileFault] = []
    calibration, loop = files.calibration, files.closed_loop
    sources = (
        ("calibrate", "calibrate/report.json", lambda: calibration_figures(calibration) if calibration else ()),
        ("closed_loop", "closed_loop/closed_loop.json", lambda: figures.closed_loop_figures(loop) if loop else ()),
    )
    for stage, file, build in sources:
        try:
            found.extend(build())
        except (ValueError, InputError) as error:
            faults.append(FileFault(stage=stage, file=file, message=f"cannot be drawn: {error}"))
    return found, faults


def _audits(files: RunFiles) -> tuple[dict[str, tuple[AuditSection, ...]], list[FileFault]]:
    """Return what each network's audit says, by the network's digest."""
    found: dict[str, tuple[AuditSection, ...]] = {}
    faults: list[FileFault] = []
    for run in files.exported:
        if run.audit is None:
            continue
        try:
            found[run.digest] = audit_sections(run.audit)
        except ValueError as error:
            faults.append(FileFault(stage="export", file=f"{run.folder}/audit.json", message=str(error)))
    return found, faults


def _curves(files: RunFiles) -> list[tuple[figures.CurveFigure, Drawing]]:
    found: list[tuple[figures.CurveFigure, Drawing]] = []
    for run in files.trained:
        for figure in figures.curve_figures(run):
            if figure.curves:
                name = f"curve-{len(found)}"
                found.append((figure, _drawing(name, f"Training curves of {figure.stage}", plots.curve_plot(figure))))
    return found


def _drawing(name: str, label: str, plot: go.Figure) -> Drawing:
    return Drawing(name=name, label=label, height=int(plot.layout.height), json=plot.to_json(validate=False))


def _missing(files: RunFiles) -> dict[str, str]:
    """Return, per section, why its stage has nothing to show."""
    return {section: _reason(files, stage) for section, stage in _WRITTEN_BY.items()}


def _reason(files: RunFiles, name: str) -> str:
    stage = files.stage(name)
    if stage.state == "failed":
        return f"The stage “{name}” failed: {stage.error or 'no reason recorded'}"
    if stage.state == "skipped":
        return f"The stage “{name}” was left out: {stage.error or 'no reason recorded'}."
    if stage.state == "pending":
        return f"The stage “{name}” has not run."
    return f"The stage “{name}” is {stage.state} and left no usable file."


def _flat(data: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return the values of nested mappings with their dotted names; nothing for a file that holds something else."""
    rows: list[tuple[str, str]] = []
    if not isinstance(data, dict):
        return rows
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{name}."))
        elif name != "schema":
            rows.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows
