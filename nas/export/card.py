"""``model_card.md``: what a package is, how it came about, its figures with their origin, and its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.units import latency_with_interval, memory_with_interval
from nas.export.metadata import tool_versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nas.core.artefacts import ExportedModel
    from nas.core.cost import CostEstimate
    from nas.core.scenario import Scenario
    from nas.export.component import Component
    from nas.export.metadata import ExportMetadata
    from nas.export.package import Package

FORMS = {"neural_engine": "Neural Engine", "gpu": "GPU"}


def model_card(
    model: ExportedModel, package: Package, scenario: Scenario, metadata: ExportMetadata, *, component: Component
) -> str:
    """Return the card as Markdown; figures that nobody gave are not in it."""
    architecture = model.architecture
    parts = [
        f"# Video denoiser {architecture.digest}",
        metadata.description,
        _facts(model, scenario, metadata),
        "## Inputs and outputs",
        table(
            ("name", "shape", "type", "meaning"),
            [
                (port.name, port.shape, port.dtype, component.texts[port.name])
                for port in (*package.inputs, *package.outputs)
            ],
        ),
        "The program around the package computes the sinusoid of the time (`time_embedding`); all is float16.",
        "## Architecture",
        f"Point of the search space `{architecture.space}`; choices that are not listed are inactive.",
        table(("choice", "value"), architecture.choices),
        "## Training",
        _training(metadata),
        "## Figures",
        _figures(metadata),
        "## Checks of the saved package",
        table(
            ("check", "expected", "found", "passed"),
            [(item.name, item.expected, item.found, "yes" if item.passed else "**no**") for item in model.checks],
        ),
        "## Limits",
        _limits(model, scenario, costed=metadata.costed_weights),
        "## Made with",
        table(("package", "version"), [(name, version) for name, version in tool_versions().items() if version]),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(model: ExportedModel, scenario: Scenario, metadata: ExportMetadata) -> str:
    rows = [
        ("form", FORMS[model.lowering]),
        ("parameters", f"{model.parameters:,}"),
        ("package", f"{model.package_bytes / 1e6:,.1f} MB, {model.minimum_os} or newer"),
        ("stored weights", model.weights),
        ("computes in", model.precision),
        ("SHA-256", ", ".join(model.sha256)),
        ("scenario", f"{scenario.frames} latent frames, {scenario.width} x {scenario.height} px"),
        ("sampling", f"{scenario.denoising_steps} steps, {'with' if scenario.guidance else 'no'} guidance"),
        ("exported in", f"{model.seconds:.0f} s, peak memory of the process {model.peak_rss_mb:,.0f} MB"),
        ("author", metadata.author),
        ("licence", metadata.license),
    ]
    return table(("fact", "value"), [row for row in rows if row[1]])


def _training(metadata: ExportMetadata) -> str:
    trained = metadata.trained
    if trained is None:
        return (
            "**The weights are untrained**: fresh, or those of the image network alone. The package shows structure; "
            "fresh temporal layers end in zeros, so that outputs which agree say nothing about their insides."
        )
    text = f"Last stage `{trained.stage}`, {trained.steps:,} steps; weights `{trained.sha256[:16]}…`."
    if not trained.metrics:
        return text
    return f"{text}\n\n{table(('metric', 'value'), [(name, f'{value:.3g}') for name, value in trained.metrics])}"


def _figures(metadata: ExportMetadata) -> str:
    rows = [*_cost_rows(metadata.cost)] if metadata.cost else []
    if metadata.quality:
        quality = metadata.quality
        spread = f" ± {quality.standard_error:.2g}" if quality.standard_error is not None else ""
        how = f"{quality.estimator}, {quality.fidelity}"
        rows.append(("quality, higher is better", f"{quality.score:.3g}{spread}", quality.origin, how))
    rows += [(item.name, item.value, item.origin, item.where) for item in metadata.figures]
    if not rows:
        return "None recorded."
    return table(("figure", "value", "origin", "on or by"), rows)


def _cost_rows(cost: CostEstimate) -> list[tuple[str, str, str, str]]:
    where = f"{cost.device}; {cost.scenario}"
    latency = latency_with_interval(cost.latency_ms, cost.latency_interval_ms, "")
    memory = memory_with_interval(cost.peak_memory_mb, cost.memory_interval_mb, "")
    rows: list[tuple[str, str, str, str]] = [
        ("latency of one generation", latency, cost.origin, where),
        ("peak memory", memory, cost.origin, where),
    ]
    if not cost.in_domain:
        rows.append(("in the predictor's range", "no, extrapolated", cost.origin, cost.predictor))
    return rows


def _limits(model: ExportedModel, scenario: Scenario, *, costed: str) -> str:
    outputs = (
        "and its outputs as PyTorch computes the saved program on the export's machine."
        if model.parity is not None
        else "not its outputs."
    )
    return "\n".join(
        (
            "- The package has not been run on a device, nor by Core ML at all: speed, memory, placement on compute",
            "  units and numerical agreement on the phone are not established by this export.",
            f"- The checks above compare structure and stored weights with the source network, {outputs}",
            f"- Shapes are fixed: one clip of {scenario.frames} latent frames.",
            f"- The network has the form for the {FORMS[model.lowering]}; other compute units may run it more slowly.",
            *(
                (f"- The cost above is of weights in {costed}, which are not those of the package: {model.weights}.",)
                if costed
                else ()
            ),
        )
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
