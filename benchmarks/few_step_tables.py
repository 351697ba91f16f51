"""Rows of few_step.py as JSON, a Markdown table with the figures to reach, and a grid of sampled frames."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.core.schema import to_data
from nas.training.evaluation import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHOWN = (
    "frechet", "sliced_wasserstein", "diversity", "jitter", "flicker", "colour", "shape", "direction", "motion", "mean"
)  # fmt: skip
ATTRIBUTES = ("colour", "shape", "direction", "motion")
TEACHER, FOLLOWED, TUNED = "teacher, 25 steps, guidance 3", "trajectory distillation", "trajectory + adversarial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network of one seed: its metrics, and the CPU seconds of each stage that led to it."""

    seed: int
    name: str
    calls: int
    sampler: str
    num_clips: int
    metrics: dict[str, float]
    cpu_seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure to reach, and what was seen."""

    what: str
    wanted: str
    seen: str
    reached: bool


def write_tables(path: Path, rows: Sequence[Row], body: Mapping[str, Any]) -> None:
    """Write ``path`` with the suffixes ``.json`` and ``.md``."""
    figures = find_figures(rows)
    seeds = len({row.seed for row in rows})
    full = {
        "schema": "nas/benchmark/1",
        "created_at": timestamp(),
        "seeds": seeds,
        "host": host(),
        "versions": versions(),
        **body,
        "figures": to_data(figures),
        "rows": to_data(list(rows)),
    }
    write_json(path.with_suffix(".json"), full)
    write_text_atomically(path.with_suffix(".md"), markdown(rows, figures, full))


def find_figures(rows: Sequence[Row]) -> list[Figure]:
    """Compare what the rows show with the figures to reach; those without their rows are left out."""
    means = by_name(rows)
    if TUNED not in means or TEACHER not in means:
        return []
    teacher, followed, tuned = means[TEACHER], means[FOLLOWED], means[TUNED]
    share = tuned["mean"] / teacher["mean"]
    calls = {row.name: row.calls for row in rows}
    found = [
        Figure(
            what="mean attribute accuracy of the four-step student as a share of the 25-step guided teacher's",
            wanted="at least 98 %",
            seen=f"{share:.1%}",
            reached=share >= 0.98,
        ),
        Figure(
            what="denoiser calls, teacher against student",
            wanted="12.5 times fewer",
            seen=f"{calls[TEACHER]} against {calls[TUNED]}, {calls[TEACHER] / calls[TUNED]:g} times fewer",
            reached=calls[TEACHER] >= 12.5 * calls[TUNED],
        ),
    ]
    for metric in ("frechet", "jitter", "flicker"):
        gain = 1.0 - tuned[metric] / followed[metric]
        one = [1.0 - of(rows, TUNED, seed)[metric] / of(rows, FOLLOWED, seed)[metric] for seed in seeds_of(rows, TUNED)]
        spread = f"{min(one):.0%} to {max(one):.0%} by seed"
        found.append(
            Figure(
                what=f"{metric}: gain of the adversarial stage over trajectory distillation alone",
                wanted="at least 15 %",
                seen=f"{gain:.0%} ({spread})",
                reached=gain >= 0.15,
            )
        )
    points = {
        name: [100 * (of(rows, TUNED, seed)[name] - of(rows, FOLLOWED, seed)[name]) for seed in seeds_of(rows, TUNED)]
        for name in ATTRIBUTES
    }
    found.append(
        Figure(
            what="attributes after the adversarial stage against before, in points (range over seeds)",
            wanted="none more than 1 worse",
            seen=", ".join(f"{name} {_spread(values, '.1f')}" for name, values in points.items()),
            reached=min(statistics.fmean(values) for values in points.values()) >= -1.0,
        )
    )
    found.extend(_heads(rows))
    return found


def _heads(rows: Sequence[Row]) -> list[Figure]:
    """Joint heads against video-only ones, seed by seed, for each has its own captions and noise."""
    video_only = f"{TUNED}, without image heads"
    seeds = seeds_of(rows, video_only)
    if not seeds:
        return []
    changes = {
        name: [better_by(name, of(rows, TUNED, seed)[name], of(rows, video_only, seed)[name]) for seed in seeds]
        for name in SHOWN
        if name != "diversity"
    }
    means = [statistics.fmean(values) for values in changes.values()]
    return [
        Figure(
            what=f"joint image-video heads against video-only, better (+) or worse (-), mean and range of {len(seeds)} "
            "seeds",
            wanted="no worse on any metric, better on one",
            seen=", ".join(f"{name} {_spread(values, '.1%')}" for name, values in changes.items()),
            reached=min(means) >= 0.0 and max(means) > 0.0,
        )
    ]


def _spread(values: Sequence[float], form: str) -> str:
    """Mean with sign, and the range where there are several."""
    mean = f"{statistics.fmean(values):+{form}}"
    return mean if len(set(values)) == 1 else f"{mean} ({min(values):+{form}} to {max(values):+{form}})"


def better_by(metric: str, new: float, old: float) -> float:
    """Relative change of a metric, positive when better."""
    change = (new - old) / old
    return change if METRICS[metric] == "higher" else -change


def by_name(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Mean of every metric over seeds, by row."""
    names = dict.fromkeys(row.name for row in rows)
    return {
        name: {metric: statistics.fmean(row.metrics[metric] for row in rows if row.name == name) for metric in METRICS}
        for name in names
    }


def seeds_of(rows: Sequence[Row], name: str) -> list[int]:
    """Seeds that have the row."""
    return sorted(row.seed for row in rows if row.name == name)


def of(rows: Sequence[Row], name: str, seed: int) -> dict[str, float]:
    """Metrics of one row of one seed."""
    return next(row.metrics for row in rows if (row.name, row.seed) == (name, seed))


def markdown(rows: Sequence[Row], figures: Sequence[Figure], body: Mapping[str, Any]) -> str:
    """The tables as text."""
    lines = [
        "# Four steps without guidance on the toy task",
        "",
        f"Command: `{body['command']}`.",
        "Mean over the seeds stated, in brackets the range over seeds of the mean accuracy. Held-out captions; the",
        "judge is analytic. Teacher and students are one architecture; teacher and ways from noise to clip (seed 0)",
        "are shared. Rows are sampled by Euler steps, or by predicting the clip and adding noise again (renoise).",
        "",
        "| network | seeds | clips | calls | sampler | " + " | ".join(_titles()) + " | CPU s |",
        "| --- " * (len(SHOWN) + 6) + "|",
    ]
    for name, values in by_name(rows).items():
        mine = [row for row in rows if row.name == name]
        cells = [f"{values[metric]:{'.4f' if metric in FINE else '.3f'}}" for metric in SHOWN]
        means = [row.metrics["mean"] for row in mine]
        cells[SHOWN.index("mean")] += f" ({min(means):.3f}-{max(means):.3f})"
        own = statistics.fmean(list(row.cpu_seconds.values())[-1] if row.cpu_seconds else 0.0 for row in mine)
        front = f"| {name} | {len(mine)} | {mine[0].num_clips} | {mine[0].calls} | {mine[0].sampler} | "
        lines.append(front + " | ".join(cells) + f" | {own:.0f} |")
    lines += [
        "",
        "CPU s is the row's own last stage; before it come the teacher, and for rows that start from trajectory",
        "distillation also that and the collection of the teacher's ways (in the JSON file, by stage). Chance is 0.17",
        "for colour, 0.33 for shape, 0.25 for direction, 0.11 for motion. Frechet distances of rows with fewer clips",
        "are biased upwards. Diversity is best near that of real clips through the codec. Rows of fewer seeds are",
        "those that a shortened run had come to; the same command goes on with the rest.",
        "",
        "## Figures to reach",
        "",
        "| figure | wanted | seen | reached |",
        "| --- | --- | --- | --- |",
        *(f"| {item.what} | {item.wanted} | {item.seen} | {'yes' if item.reached else 'no'} |" for item in figures),
        "",
        f"The classifier under Frechet distances reads {body['classifier_accuracy']:.1%} of real held-out clips right.",
        "",
        f"Machine: {', '.join(f'{key} {value}' for key, value in body['host'].items())}; "
        f"{', '.join(f'{key} {value}' for key, value in body['versions'].items() if value)}.",
        "One thread, shared with other work: CPU seconds, not wall time.",
        *body.get("notes", ()),
        "",
    ]
    return "\n".join(lines)


FINE = ("sliced_wasserstein", "flicker")


def _titles() -> list[str]:
    arrows = {"higher": "up", "lower": "down"}
    return [f"{metric.replace('_', ' ')} ({arrows[METRICS[metric]]})" for metric in SHOWN]


def write_grid(path: Path, videos: Mapping[str, NDArray[np.uint8]], captions: Sequence[str]) -> None:
    """Draw a PNG: a row for each network, the frames of the second and the last caption side by side."""
    from PIL import Image, ImageDraw

    picked, magnify, gap, label = (1, 5), 2, 2, 210
    frames, size = next(iter(videos.values())).shape[1], next(iter(videos.values())).shape[-1] * magnify
    block = frames * (size + gap)
    width, height = label + len(picked) * (block + 12), 24 + len(videos) * (size + gap)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, index in enumerate(picked):
        draw.text((label + column * (block + 12), 6), captions[index], fill="black")
    for row, (name, video) in enumerate(videos.items()):
        top = 24 + row * (size + gap)
        draw.text((4, top + size // 2 - 6), name.replace("trajectory + adversarial", "traj. + adv."), fill="black")
        for column, index in enumerate(picked):
            for frame in range(frames):
                pixels = np.ascontiguousarray(video[index, frame].transpose(1, 2, 0))
                tile = Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)
                sheet.paste(tile, (label + column * (block + 12) + frame * (size + gap), top))
    sheet.save(path)
