"""Which quality estimator ranks toy architectures as full training does, and what it costs.

The truth is architectures of ``tiny`` trained fully (quality_rank_truth.py): 24 for tuning, six of them trained twice,
which shows how well any ranking can do, and 24 for validation. Each estimator ranks both sets, and shares no seed with
the truth. The one that is recommended is chosen on the first set and judged on the second.

Cost is CPU time of one thread. What an estimator pays once, such as training a supernet, is stated by itself and spread
over the candidates of a search (96, as in the demo); a candidate's share of full training counts both. The trained
backbone, which full training starts from as well, is in neither.

    python benchmarks/quality_rank.py --work runs/quality_rank --out benchmarks/results
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import quality_rank_truth as truth
import torch
from quality_rank_scores import to_markdown, verdicts

from nas.core.files import JsonLines, write_json, write_text_atomically
from nas.core.protocols import QualityEstimator
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario
from nas.quality.alignment import alignment_to_largest
from nas.quality.capacity import TemporalCapacity
from nas.quality.held_out_loss import supernet_quality
from nas.quality.options import MOTION_TIMES, ShortTrainingOptions, SupernetOptions
from nas.quality.proxies import make_proxy
from nas.quality.sensitivity import supernet_sensitivities
from nas.quality.short_training import SharedStart, ShortTraining, shared_start
from nas.quality.supernet import make_supernet, on_backbone, train_supernet
from nas.training.options import LoopOptions, NoiseOptions
from nas.training.stage import Kit

if TYPE_CHECKING:
    from nas.quality.alignment import FeatureAlignment

SPACE = truth.SPACE
# Estimators draw other weights, orders and noise than the truth.
OWN_SEED = 500
CANDIDATES = 96
SCENARIO = Scenario(frames=8, height=32, width=32, denoising_steps=4, precision="float32")


def _supernet_options(steps: int, *, batch_size: int = 16, image_ratio: float = 0.0, **paths: Any) -> SupernetOptions:
    """Options of a supernet in the common backbone."""
    return SupernetOptions(
        loop=LoopOptions(steps=steps, batch_size=batch_size, threads=1),
        noise=NoiseOptions(image_ratio=image_ratio),
        backbone_steps=truth.FULL.backbone_steps,
        **paths,
    )


SUPERNETS: dict[str, SupernetOptions] = {
    "fair, 960 steps of 16 clips, images": _supernet_options(960, image_ratio=0.2, drop_ratio=0.2),
    "fair, 1920 steps of 8 clips": _supernet_options(1920, batch_size=8, drop_ratio=0.1),
    "shared attention, 960 steps of 16 clips": _supernet_options(960, drop_ratio=0.1, sharing="attention"),
    "shared attention, 1440 steps of 8 clips": _supernet_options(
        1440, batch_size=8, drop_ratio=0.1, sharing="attention"
    ),
    "sandwich, 640 steps of 8 clips": _supernet_options(640, batch_size=8, drop_ratio=0.1, rule="sandwich"),
}
# Where the loss of a supernet with shared attention is taken: near pure noise it ranked the architectures for tuning
# worse (tau 0.74 at these times, 0.71 at all five of the truth, 0.69 at 0.6, 0.75 and 0.9; means of two seeds).
TIMES = (0.3, 0.45, 0.6, 0.75)
FIRST, BEST = "fair, 960 steps of 16 clips, images", "fair, 1920 steps of 8 clips"


@dataclass(kw_only=True)
class Work:
    """What estimators share: the trained start, supernets and what they cost."""

    folder: Path
    costs: JsonLines = field(init=False)
    _supernets: dict[str, Kit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.costs = JsonLines(self.folder / "one_off.jsonl")

    @cached_property
    def start(self) -> SharedStart:
        """The backbone that full training starts from, with another seed for all that follows."""
        start = truth.make_start(self.folder)
        return replace(start, seed=start.seed + OWN_SEED)

    def supernet(self, name: str) -> Kit:
        """Train a supernet, or read it; its CPU time is added to ``one_off.jsonl``."""
        if name not in self._supernets:
            began = time.process_time()
            start = self.start
            options = SUPERNETS[name]
            kit = make_supernet(SPACE, seed=start.seed, sharing=options.sharing)
            if options.backbone_steps:
                kit = on_backbone(kit, start.kit)
            folder = self.folder / "supernets" / name.replace(", ", "-").replace(" ", "_")
            result = train_supernet(kit, start.data, options=options, folder=folder, streams=RandomStreams(OWN_SEED))
            self._supernets[name] = result.kit
            if not result.reused:
                self.paid(f"supernet {name}", time.process_time() - began)
        return self._supernets[name]

    def alignment(self) -> FeatureAlignment:
        """Align to the largest network, trained as long as the truth, with another seed."""
        began = time.process_time()
        folder = self.folder / "alignment_teacher"
        finished = (folder / "stage.json").exists()
        found = alignment_to_largest(
            SPACE, self.start, loop=truth.FULL.loop, folder=folder, streams=RandomStreams(OWN_SEED)
        )
        if not finished:
            self.paid("teacher", time.process_time() - began)
        return found

    def paid(self, name: str, cpu_s: float) -> None:
        """Note what something cost once."""
        self.costs.append({"name": name, "cpu_s": cpu_s})

    def one_off_cpu_s(self, names: Sequence[str]) -> float:
        """Return what ``names`` cost together."""
        last = {row["name"]: row["cpu_s"] for row in self.costs.read()}  # what was measured again replaces
        return sum(last.get(name, 0.0) for name in names)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An estimator of the benchmark: how it is made, and names of what it pays once."""

    make: Callable[[Work], QualityEstimator]
    once: tuple[str, ...] = ()


def _proxy(name: str) -> Entry:
    return Entry(make=lambda work: make_proxy(name, SPACE, start=work.start, scenario=SCENARIO))


def _supernet(name: str) -> Entry:
    def make(work: Work) -> QualityEstimator:
        options = SUPERNETS[name]
        times = TIMES if options.sharing == "attention" else MOTION_TIMES
        return supernet_quality(
            work.supernet(name), seed=work.start.seed, trained_steps=options.loop.steps, times=times
        )

    return Entry(make=make, once=(f"supernet {name}",))


def _short(options: ShortTrainingOptions) -> Entry:
    return Entry(make=lambda work: ShortTraining(SPACE, work.start, options.loop, layers=options.layers))


def _inherited(name: str, options: ShortTrainingOptions) -> Entry:
    def make(work: Work) -> QualityEstimator:
        start = shared_start(work.supernet(name), options, data=work.start.data, seed=work.start.seed)
        return ShortTraining(SPACE, start, options.loop, layers=options.layers)

    return Entry(make=make, once=(f"supernet {name}",))


def _sensitivity(name: str, *, largest: bool, pairs: bool) -> Entry:
    once = f"sensitivities {name}, {'largest' if largest else 'empty'}{', pairs' if pairs else ''}"

    def make(work: Work) -> QualityEstimator:
        kit, began = work.supernet(name), time.process_time()
        found = supernet_sensitivities(
            kit,
            reference="largest" if largest else "empty",
            pairs=pairs,
            seed=work.start.seed,
            trained_steps=SUPERNETS[name].loop.steps,
        )
        work.paid(once, time.process_time() - began)
        return found

    return Entry(make=make, once=(f"supernet {name}", once))


def _options(steps: int, **changes: Any) -> ShortTrainingOptions:
    return replace(truth.FULL, steps=steps, **changes)


ENTRIES: dict[str, Entry] = {
    "parameters": _proxy("parameters"),
    "FLOPs": _proxy("flops"),
    "temporal capacity": Entry(make=lambda _work: TemporalCapacity(SPACE, SCENARIO)),
    "gradient norm": _proxy("grad_norm"),
    "synflow": _proxy("synflow"),
    "feature alignment": Entry(make=Work.alignment, once=("teacher",)),
    **{f"supernet, {name}": _supernet(name) for name in SUPERNETS},
    "short training, 12 steps": _short(_options(12)),
    "short training of temporal layers, 12 steps": _short(_options(12, layers="temporal")),
    "short training, 50 steps": _short(_options(50)),
    "supernet, fair, then 8 steps": _inherited(BEST, _options(8, learning_rate=1e-3)),
    "removal sensitivity, 960-step supernet": _sensitivity(FIRST, largest=False, pairs=False),
    "removal sensitivity, from largest": _sensitivity(BEST, largest=True, pairs=False),
    "removal sensitivity, pairs": _sensitivity(BEST, largest=False, pairs=True),
}

COMBINED: dict[str, tuple[str, ...]] = {
    "mean rank: synflow, gradient norm": ("synflow", "gradient norm"),
    "mean rank: supernet, synflow, gradient norm": (f"supernet, {BEST}", "synflow", "gradient norm"),
}


def estimate(work: Work, names: Sequence[str]) -> None:
    """Let every named estimator judge what ``estimates.jsonl`` does not hold yet."""
    done = JsonLines(work.folder / "estimates.jsonl")
    known = {(row["estimator"], row["index"]) for row in done.read()}
    for name in names:
        todo = [index for index in range(len(truth.architectures())) if (name, index) not in known]
        if not todo:
            continue
        estimator = ENTRIES[name].make(work)
        for index in todo:
            began = time.process_time()
            quality = estimator.estimate(truth.architectures()[index])
            cpu_s = time.process_time() - began
            done.append({"estimator": name, "index": index, "score": quality.score, "cpu_s": cpu_s})
        print(name, "done", flush=True)


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of trainings; an interrupted run goes on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--replicates", type=int, default=6, help="architectures trained twice")
    parser.add_argument("--estimator", action="append", choices=list(ENTRIES), help="default: all")
    parser.add_argument("--only-table", action="store_true", help="write the tables of what there is")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = Work(folder=options.work)
    if not options.only_table:
        truth.train_truth(options.work, replicates=options.replicates)
        estimate(work, options.estimator or list(ENTRIES))
    trained = JsonLines(options.work / "truth.jsonl").read()
    estimates = JsonLines(options.work / "estimates.jsonl").read()
    once = {name: work.one_off_cpu_s(entry.once) for name, entry in ENTRIES.items()}
    unseen = [index for index in range(len(truth.architectures())) if truth.set_of(index) == "validation"]
    document = {
        "schema": "nas/benchmark/1",
        "created_at": timestamp(),
        "command": "python benchmarks/quality_rank.py",
        "host": host(),
        "versions": versions(),
        "seeds": {"truth": truth.SEED, "architectures": truth.SET_SEEDS, "estimators": OWN_SEED},
        "candidates_of_a_search": CANDIDATES,
        **verdicts(trained, estimates, once=once, candidates=CANDIDATES, combined=COMBINED, unseen=unseen),
        "not_run": sorted(set(ENTRIES) - {row["estimator"] for row in estimates}),
        "truth": trained,
        "estimates": estimates,
        "one_off": work.costs.read(),
    }
    write_json(options.out / "quality_rank.json", document)
    write_text_atomically(options.out / "quality_rank.md", to_markdown(document))


if __name__ == "__main__":
    main()
