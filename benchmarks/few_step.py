"""What each way to four steps without guidance earns on the toy task: metrics, denoiser calls and CPU seconds.

One teacher and its ways from noise to clip (seed 0) are shared; the teacher and every student are one architecture, as
in SnapGen-V, whose four-step network starts from the many-step one. Every seed has its own students, and its own noise
and captions in the evaluation. The folder given by --work keeps stages and rows: an interrupted benchmark goes on.

    python benchmarks/few_step.py --seeds 3 --work runs/few_step --out benchmarks/results/few_step
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from few_step_tables import FOLLOWED, TUNED, Row, write_grid, write_tables

import search_spaces
from nas.core.architecture import Architecture
from nas.core.files import write_json
from nas.core.rng import RandomStreams
from nas.core.schema import from_data, to_data
from nas.models.build import build_denoiser
from nas.training.adversarial import tune_adversarially
from nas.training.clip_features import FILE, clip_reference
from nas.training.consistency import distil_consistency
from nas.training.data import make_latent_clips
from nas.training.evaluation import evaluate, evaluate_real, generate, measure, real_samples
from nas.training.evaluation import sample_attributes as shown_attributes
from nas.training.noise import FIXED_TIMES
from nas.training.options import (
    AdversarialOptions,
    CollectionOptions,
    ConsistencyOptions,
    LoopOptions,
    ProgressiveOptions,
    TeacherOptions,
    TrajectoryOptions,
)
from nas.training.progressive import distil_progressively
from nas.training.stage import load_kit, make_kit
from nas.training.teacher import train_teacher
from nas.training.trajectory import collect_trajectories, distil_trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from nas.training.clip_features import ClipReference
    from nas.training.data import LatentClips
    from nas.training.sampling import Sampler
    from nas.training.stage import Kit
    from nas.training.trajectory import Trajectories

SPACE = search_spaces.get("tiny")
# A mixed network, one layer of each family; a search chooses its own.
NETWORK = {
    "down0.0": {"kind": "conv1d", "width_ratio": 1.0, "kernel": 3},
    "down1.0": {"kind": "self_attention_1d", "width_ratio": 1.0, "heads": 4},
    "mid.0": {"kind": "self_attention_3d", "width_ratio": 1.0, "heads": 4},
    "up0.0": {"kind": "conv3d", "width_ratio": 0.5},
    "up1.0": {"kind": "conv1d", "width_ratio": 1.0, "kernel": 3},
}
CLIPS, TEACHER_CLIPS = 576, 288
GUIDANCE, TEACHER_STEPS = 3.0, 25
TEACHER = TeacherOptions(loop=LoopOptions(steps=3600, batch_size=32, threads=1))
COLLECTION = CollectionOptions(num_clips=1024)
TRAJECTORY = TrajectoryOptions(loop=LoopOptions(steps=500, batch_size=32, learning_rate=1e-3, threads=1))
ADVERSARIAL = AdversarialOptions()
# As SF-V has it, with nothing of the teacher's ways: noisy real clips in, reconstruction as the only anchor.
PUBLISHED = dataclasses.replace(
    ADVERSARIAL,
    loop=LoopOptions(steps=150, batch_size=16, learning_rate=4e-4, warmup_steps=10, threads=1),
    generator_input="real",
    anchor_weight=0.0,
    reconstruction="pseudo_huber",
    reconstruction_weight=0.1,
    reconstruction_guidance=1.0,
    adversarial_weight=1.0,
    time_mean=-1.0,
)
VARIANTS = {
    "without image heads": dataclasses.replace(ADVERSARIAL, image_heads=False),
    "without the discriminator": dataclasses.replace(ADVERSARIAL, adversarial_weight=0.0),
    "without video heads": dataclasses.replace(ADVERSARIAL, video_heads=False),
}
CONSISTENCY = ConsistencyOptions(loop=LoopOptions(steps=250, batch_size=16, learning_rate=1e-3, threads=1))
PROGRESSIVE = ProgressiveOptions(loop=LoopOptions(steps=100, batch_size=16, learning_rate=1e-3, threads=1))


class Printer:
    """Progress as lines, at most one every twenty seconds."""

    def __init__(self) -> None:
        self._last = 0.0

    def update(self, done: int, total: int, message: str = "") -> None:
        """Print now and then."""
        if time.monotonic() - self._last > 20:
            self._last = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {done}/{total} {message} ({time.process_time():.0f} CPU s)", flush=True)


class Benchmark:
    """The work folder, what all seeds share, and the rows finished so far."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._progress = Printer()
        teacher = fresh_kit()
        self._data: LatentClips = make_latent_clips(8192, codec=teacher.codec, captions=teacher.captions, seed=1)
        with self._priced("teacher"):
            train_teacher(
                teacher,
                self._data,
                options=TEACHER,
                folder=work / "teacher",
                streams=RandomStreams(0),
                progress=self._progress,
            )
        with self._priced("classifier"):
            self._reference: ClipReference = clip_reference(work / FILE, steps=200)
        self._teacher = teacher

    @property
    def classifier_accuracy(self) -> float:
        """Share of real held-out clips that the classifier under Frechet distances reads wholly right."""
        return self._reference.accuracy

    def rows(self, seeds: int, *, only_main: bool) -> Iterator[Row]:
        """Every row of every seed; those that the figures to reach need come first, then each part left out."""
        for seed in range(seeds):
            yield self._row(seed, "real clips", 0, self._real)
            yield self._row(seed, "real clips through the codec", 0, self._through_codec)
            if seed == 0:  # one teacher, and a sampling that costs as much as a student's stage
                name = f"teacher, {TEACHER_STEPS} steps, guidance {GUIDANCE:g}"
                yield self._row(seed, name, 2 * TEACHER_STEPS, self._many_steps, stages=("teacher",))
            yield self._row(seed, "the same network, 4 steps", 4, self._plain, stages=("teacher",))
            yield self._student(seed, FOLLOWED, self._trajectory, after=("ways",))
            yield self._row(seed, f"{FOLLOWED}, other sampler", 4, self._renoised, stages=AFTER, sampler="renoise")
            yield self._student(seed, TUNED, self._adversarial(ADVERSARIAL), after=AFTER, sampler="renoise")
        if only_main:
            return
        for name, options in VARIANTS.items():
            for seed in range(seeds):
                train = self._adversarial(options)
                yield self._student(seed, f"{TUNED}, {name}", train, after=AFTER, sampler="renoise")
        for seed in range(seeds):
            alone = self._adversarial(PUBLISHED, followed=False)
            yield self._student(seed, "adversarial alone", alone, sampler="renoise")
            yield self._student(seed, "consistency distillation", self._consistency, sampler="renoise")
            yield self._student(seed, "progressive distillation 32-16-8-4", self._progressive)

    def grid(self, seed: int, names: tuple[str, ...], path: Path) -> None:
        """Draw the fixed captions by the stages called ``names``, all from one noise."""
        captions = shown_attributes().captions()
        videos: dict[str, NDArray[np.uint8]] = {"real clips": real_samples(seed=seed)}
        videos["teacher, 25 steps"] = generate(
            self._teacher, captions, steps=TEACHER_STEPS, guidance=GUIDANCE, seed=seed
        )
        videos["4 steps: same network"] = generate(self._teacher, captions, steps=4, guidance=1.0, seed=seed)
        for name in names:
            folder = self._folder(seed, name)
            if (folder / "stage.json").exists():
                sampler: Sampler = "renoise" if name in RENOISED or name.startswith(TUNED) else "euler"
                videos[f"4 steps: {name}"] = generate(
                    load_kit(folder), captions, steps=4, guidance=1.0, seed=seed, sampler=sampler
                )
        write_grid(path, videos, captions)

    def _student(
        self,
        seed: int,
        name: str,
        train: Callable[[int, Path], Kit],
        *,
        after: tuple[str, ...] = (),
        sampler: Sampler = "euler",
    ) -> Row:
        stage = self._folder(seed, name).name

        def make(_: int) -> dict[str, float]:
            with self._priced(f"seed-{seed}/{stage}"):
                kit = train(seed, self._folder(seed, name))
            return self._evaluate(kit, seed, steps=4, guidance=1.0, num_clips=CLIPS, sampler=sampler)

        stages = ("teacher", *after, f"seed-{seed}/{stage}")
        return self._row(seed, name, 4, make, stages=stages, sampler=sampler)

    def _row(
        self,
        seed: int,
        name: str,
        calls: int,
        make: Callable[[int], dict[str, float]],
        *,
        stages: tuple[str, ...] = (),
        sampler: str = "euler",
    ) -> Row:
        path = self._work / f"seed-{seed}" / "rows" / f"{slug(name)}.json"
        if path.exists():
            return from_data(Row, json.loads(path.read_text()), where=str(path))
        print(f"{time.strftime('%H:%M:%S')} seed {seed}: {name} ({time.process_time():.0f} CPU s)", flush=True)
        metrics = make(seed)
        row = Row(
            seed=seed,
            name=name,
            calls=calls,
            sampler=sampler if calls else "none",
            num_clips=TEACHER_CLIPS if calls > 4 else CLIPS,
            metrics=metrics,
            cpu_seconds={stage.split("/")[-1]: self._price(stage.format(seed=seed)) for stage in stages},
        )
        write_json(path, to_data(row))
        return row

    def _real(self, seed: int) -> dict[str, float]:
        return evaluate_real(num_clips=CLIPS, seed=seed, reference=self._reference)

    def _through_codec(self, seed: int) -> dict[str, float]:
        from nas.training.clips import make_clips

        clips = make_clips(CLIPS, seed=seed, split="held_out")
        codec = self._teacher.codec
        video = codec.decode_clips(codec.encode_clips(clips.video))
        return measure(video, clips.attributes, reference=self._reference)

    def _many_steps(self, seed: int) -> dict[str, float]:
        return self._evaluate(self._teacher, seed, steps=TEACHER_STEPS, guidance=GUIDANCE, num_clips=TEACHER_CLIPS)

    def _renoised(self, seed: int) -> dict[str, float]:
        kit = load_kit(self._folder(seed, FOLLOWED))
        return self._evaluate(kit, seed, steps=4, guidance=1.0, num_clips=CLIPS, sampler="renoise")

    def _plain(self, seed: int) -> dict[str, float]:
        return self._evaluate(self._teacher, seed, steps=4, guidance=1.0, num_clips=CLIPS)

    def _evaluate(
        self, kit: Kit, seed: int, *, steps: int, guidance: float, num_clips: int, sampler: Sampler = "euler"
    ) -> dict[str, float]:
        return evaluate(
            kit,
            steps=steps,
            guidance=guidance,
            num_clips=num_clips,
            seed=1000 + seed,
            sampler=sampler,
            reference=self._reference,
        )

    def _ways(self) -> Trajectories:
        with self._priced("ways"):
            return collect_trajectories(
                self._teacher,
                self._data,
                options=COLLECTION,
                path=self._work / "ways.safetensors",
                streams=RandomStreams(0),
                times=FIXED_TIMES,
                progress=self._progress,
            )

    def _start(self, seed: int, *, followed: bool) -> Kit:
        return load_kit(self._folder(seed, FOLLOWED) if followed else self._work / "teacher")

    def _trajectory(self, seed: int, folder: Path) -> Kit:
        ways, kit = self._ways(), self._start(seed, followed=False)
        streams = RandomStreams(seed)
        distil_trajectory(kit, ways, options=TRAJECTORY, folder=folder, streams=streams, progress=self._progress)
        return kit

    def _adversarial(self, options: AdversarialOptions, *, followed: bool = True) -> Callable[[int, Path], Kit]:
        def train(seed: int, folder: Path) -> Kit:
            kit = self._start(seed, followed=followed)
            tune_adversarially(
                kit,
                self._teacher,
                self._data,
                self._ways(),
                options=options,
                folder=folder,
                metrics=folder.with_suffix(".jsonl"),
                streams=RandomStreams(seed),
                progress=self._progress,
            )
            return kit

        return train

    def _consistency(self, seed: int, folder: Path) -> Kit:
        kit = self._start(seed, followed=False)
        distil_consistency(
            kit,
            self._teacher,
            self._data,
            options=CONSISTENCY,
            folder=folder,
            streams=RandomStreams(seed),
            progress=self._progress,
        )
        return kit

    def _progressive(self, seed: int, folder: Path) -> Kit:
        kit = self._start(seed, followed=False)
        distil_progressively(
            kit,
            self._teacher,
            self._data,
            options=PROGRESSIVE,
            folder=folder,
            streams=RandomStreams(seed),
            progress=self._progress,
        )
        return kit

    def _folder(self, seed: int, name: str) -> Path:
        return self._work / f"seed-{seed}" / slug(name)

    @contextmanager
    def _priced(self, stage: str) -> Iterator[None]:
        """Add the CPU seconds spent inside to those of earlier, interrupted starts; ``kill -9`` loses its own."""
        began = time.process_time()
        try:
            yield
        finally:
            spent = time.process_time() - began
            write_json(self._work / f"{stage}.price.json", self._price(stage) + spent)

    def _price(self, stage: str) -> float:
        path = self._work / f"{stage}.price.json"
        return float(json.loads(path.read_text())) if path.exists() else 0.0


AFTER = ("ways", "seed-{seed}/trajectory-distillation")
RENOISED = ("adversarial alone", "consistency distillation")


def main() -> None:
    """Run the benchmark; tables are written after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/few_step"))
    parser.add_argument("--out", type=Path, required=True, help="path without suffix; .json, .md and .png are written")
    parser.add_argument("--only-main", action="store_true", help="leave the baselines out")
    parser.add_argument("--note", action="append", default=[], help="a line for the end of the tables; may be repeated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    benchmark = Benchmark(arguments.work)
    options = {
        "teacher": TEACHER,
        "collection": COLLECTION,
        "trajectory": TRAJECTORY,
        "adversarial": ADVERSARIAL,
        "adversarial alone": PUBLISHED,
        "consistency": CONSISTENCY,
        "progressive": PROGRESSIVE,
    }
    body = {
        "command": f"python benchmarks/few_step.py --seeds {arguments.seeds} --out benchmarks/results/few_step",
        "network": NETWORK,
        "classifier_accuracy": benchmark.classifier_accuracy,
        "options": to_data(options),
        "notes": arguments.note,
    }
    rows: list[Row] = []
    for row in benchmark.rows(arguments.seeds, only_main=arguments.only_main):
        rows.append(row)
        write_tables(arguments.out, rows, body)
    names = tuple(dict.fromkeys(row.name for row in rows))
    benchmark.grid(0, names, arguments.out.with_suffix(".png"))


def fresh_kit() -> Kit:
    """The network with fresh weights, its captions and codec."""
    choices = {f"{slot}.{name}": value for slot, setting in NETWORK.items() for name, value in setting.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_denoiser(SPACE, Architecture(SPACE.identifier, choices))
    return make_kit(network, text_width=64, text_tokens=12, latent_channels=16, patch=8, seed=0)


def slug(name: str) -> str:
    """A name as a file's."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name).split())


if __name__ == "__main__":
    main()
