"""The sections of the model card that speak of the bundle: its packages, how they are used, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.export.card import table
from nas.export.parity import UNTOUCHED

if TYPE_CHECKING:
    from nas.core.artefacts import ParityReport
    from nas.export.bundle import Bundle


_HEADER = ("network", "package", "size", "called", "checks passed", "weights", "float16 package against PyTorch")


def bundle_sections(bundle: Bundle) -> str:
    """Return Markdown to add to the card."""
    rows = [
        (
            component.name,
            package.file.path,
            f"{package.file.num_bytes / 1e6:,.2f} MB",
            component.calls,
            _passed(component.checks),
            component.compression,
            _agreement(component.parity),
        )
        for component in bundle.components
        for package in component.packages
    ]
    parts = [
        "## Bundle",
        f"`bundle.json` names every file with its digest. {_completeness(bundle)}",
        table(_HEADER, rows),
        "## Use",
        "\n".join(f"{number}. {step}" for number, step in enumerate(_steps(bundle), start=1)),
    ]
    if bundle.licences:
        names = ", ".join(f"`{file.path}`" for file in bundle.licences)
        parts += ["## Licences of text encoder and decoder", f"Taken from their folder as they are: {names}."]
    if bundle.second_opinion is not None:
        opinion = bundle.second_opinion
        psnr = "no difference" if opinion.psnr_db is None else f"PSNR {opinion.psnr_db:.1f} dB"
        parts += [
            "## Second opinion",
            f"{opinion.by}: `{opinion.package.path}` against PyTorch, {psnr}, largest difference "
            f"{opinion.max_absolute:.1e}, relative {opinion.max_relative:.1e}; converted in "
            f"{opinion.convert_seconds:.1f} s, computed in {opinion.compute_seconds:.1f} s. It checks the graph, not "
            "the Core ML packages, and is a deliverable for iOS 27.",
        ]
    return "\n" + "\n\n".join(parts) + "\n"


def _completeness(bundle: Bundle) -> str:
    if not bundle.missing:
        return "It is complete: a caption goes in, frames come out."
    absent = "; ".join(f"**{name} is missing**: {why}" for name, why in bundle.missing.items())
    return f"It is not complete. {absent}."


def _steps(bundle: Bundle) -> list[str]:
    sampling = bundle.sampling
    shape = " x ".join(map(str, sampling.latent_shape))
    times = ", ".join(f"{time:g}" for time in sampling.times)
    following = (
        "`x <- (1 - s) (x - t v) + s e`, `s` being the next time, 0 after the last, and `e` fresh standard normal noise"
        if sampling.sampler == "renoise"
        else "`x <- x + (s - t) v`, `s` being the next time, 0 after the last"
    )
    steps = []
    if bundle.component("text_encoder") is not None:
        steps.append("Turn the caption into `input_ids` as `tokenizer/` says, padded; call the text encoder once.")
    else:
        steps.append("Make `encoder_hidden_states` of the caption elsewhere: the bundle has no text encoder.")
    steps.append(f"Draw `x`, {shape} (frames, channels, height, width), standard normal, and keep it in float32.")
    call = f"For each time `t` of {times}: call the denoiser for the velocity `v`"
    if bundle.time_embedding is not None:
        embedding = bundle.time_embedding
        call += (
            f"; `{embedding.input}` has {embedding.channels} channels, computed in float32 and then rounded: "
            f"{embedding.formula}, max_period {embedding.max_period:g}, time_scale {sampling.time_scale:g}"
        )
    steps.append(f"{call}; {following}.")
    if sampling.guidance != 1.0:
        steps.append(
            f"Guidance: `v = v_empty + {sampling.guidance:g} (v_text - v_empty)`, `v_empty` being that of the empty "
            "caption, which is a second call."
        )
    if bundle.component("decoder") is not None:
        steps.append(
            f"Call the decoder on `x` with {sampling.decoder_frames} of its frames at a time; scaling is inside, and a "
            f"shorter last part repeats its last frame. Play the pixels at {sampling.fps:g} frames a second."
        )
    else:
        steps.append("Decode `x` elsewhere: the bundle has no decoder.")
    return steps


def _passed(checks: tuple[object, ...]) -> str:
    return f"{len(checks)} of {len(checks)}" if checks else "none made"  # a failed one ends the export


def _agreement(report: ParityReport | None) -> str:
    if report is None:
        return "not computed"
    worst = {
        precision: min((row.psnr_db for row in rows if row.psnr_db is not None), default=None)
        for precision in ("float32", "float16")
        if (rows := [row for row in report.rows if row.precision == precision and row.reference == UNTOUCHED])
    }
    return " / ".join("no difference" if psnr is None else f"{psnr:.1f} dB" for psnr in worst.values())
