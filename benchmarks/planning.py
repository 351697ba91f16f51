"""Error and interval of a front's latencies after N planned measurements, against random and D-optimal choice.

    python benchmarks/planning.py --out benchmarks/results --records host_records.jsonl

Three devices: a simulated phone on ``tiny`` and on ``snapgen_v``, with hidden factors of kinds and blocks anew for each
seed, and this host on ``tiny``, whose measurements are taken once into ``--records`` (or read from it) and replayed. A
strategy starts from the device's prior, chooses five blocks or networks, gets their records, fits again, and so on. The
front's own networks are never measured. Writes ``planning.json`` and ``planning.md``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import latency_models
import search_spaces
from latency_models import Candidate, MeasurementJob, MeasurementPlan, choose_networks, covering_architectures
from latency_models.backends.simulated import SimulatedBehaviour, SimulatedPhone
from latency_models.dataset import Dataset, build_dataset
from latency_models.designing import Design, choose
from latency_models.effects import Group, NetworkShape
from latency_models.observations import observe
from latency_models.posterior import Posterior, fit_posterior
from nas.core.files import write_json, write_text_atomically
from nas.core.profile import ProfileSet
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from latency_models import DeviceSpec
    from nas.core.workload import Workload

COUNTS = (5, 10, 20, 40, 80)
STEP = 5
FRONT = 12
NETWORKS = 60
# Seconds to measure one, as ``nas profile`` does on a host: three passes and setting up.
COST_S = {"block": 0.27, "network": 1.05}
HOST_RUN = """
run: {name: planning, seed: 0, directory: DIRECTORY}
space: {name: tiny, version: 1}
scenario: {frames: 8, height: 32, width: 32, denoising_steps: 4, guidance: false, precision: float32}
device: {name: host-cpu, threads: 1}
budget: {latency_share: 0.5}
profile: {networks: 60}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device with everything measured once: what a strategy may ask for, and the truth of the front."""

    data: Dataset
    shapes: Mapping[str, NetworkShape]
    front: tuple[str, ...]
    truth_ms: Mapping[str, float]
    group: Group

    def candidates(self) -> list[Candidate]:
        """Return all blocks and the networks outside the front."""
        blocks = [
            Candidate(subject=block.signature, level="block", group=self.group, cost_s=COST_S["block"])
            for block in self.data.blocks
        ]
        networks = [
            Candidate(subject=name, level="network", group=self.group, shape=shape, cost_s=COST_S["network"])
            for name, shape in self.shapes.items()
            if name not in self.front
        ]
        return blocks + networks

    def posterior(self, measured: Sequence[str]) -> Posterior:
        """Fit on what was measured of ``measured`` alone, which may be nothing."""
        data, names = self.data, set(measured)
        return fit_posterior(
            data.effects,
            [block for block in data.blocks if block.signature in names],
            [network for network in data.networks if network.subject in names],
            data.prior,
        )

    def front_shapes(self) -> list[tuple[NetworkShape, Group]]:
        """Return the front as the model sees it."""
        return [(self.shapes[name], self.group) for name in self.front]


def make_device(
    profiles: ProfileSet,
    workloads: Mapping[str, Workload],
    scenario: Scenario,
    spec: DeviceSpec,
    truth_ms: Mapping[str, float],
) -> Device:
    """Join one device's records with what they are of."""
    observations = observe(profiles)
    data = build_dataset(observations, workloads, scenario, spec)
    return Device(
        data=data,
        shapes={network.subject: network.shape for network in data.networks},
        front=nearest(truth_ms, 0.5),
        truth_ms=truth_ms,
        group=observations.groups[0],
    )


def gains(_: Sequence[Candidate], __: np.random.Generator, design: Design) -> Any:
    """Planned: what shrinks the front's variance most."""
    return design.gains()


def gains_per_second(candidates: Sequence[Candidate], _: np.random.Generator, design: Design) -> Any:
    """Planned by the second of measuring."""
    return design.gains() / np.array([candidate.cost_s for candidate in candidates])


def d_optimal(_: Sequence[Candidate], __: np.random.Generator, design: Design) -> Any:
    """What raises the log determinant of the precision of all unknowns most."""
    return design.information()


def at_random(candidates: Sequence[Candidate], generator: np.random.Generator, _: Design) -> Any:
    """Any block or network, all alike."""
    return generator.random(len(candidates))


def random_networks(candidates: Sequence[Candidate], generator: np.random.Generator, _: Design) -> Any:
    """Any network before any block."""
    return generator.random(len(candidates)) + [candidate.level == "network" for candidate in candidates]


def random_blocks(candidates: Sequence[Candidate], generator: np.random.Generator, _: Design) -> Any:
    """Any block before any network."""
    return generator.random(len(candidates)) + [candidate.level == "block" for candidate in candidates]


STRATEGIES: dict[str, Callable[..., Any]] = {
    "planned": gains,
    "planned per second": gains_per_second,
    "D-optimal": d_optimal,
    "random": at_random,
    "random networks": random_networks,
    "random blocks": random_blocks,
}


def follow(device: Device, strategy: Callable[..., Any], generator: np.random.Generator) -> dict[int, dict[str, float]]:
    """Measure as a strategy says and judge the front after each of ``COUNTS``."""
    front = device.front_shapes()
    everything = device.candidates()
    measured: list[str] = []
    found = {}
    while len(measured) < min(COUNTS[-1], len(everything)):
        posterior = device.posterior(measured)
        left = [candidate for candidate in everything if candidate.subject not in set(measured)]
        steps = choose(posterior, left, front, STEP, score=partial(strategy, left, generator))
        measured += [step.subject for step in steps]
        if len(measured) in COUNTS:
            cost_s = sum(item.cost_s for item in everything if item.subject in set(measured))
            found[len(measured)] = judge(device, device.posterior(measured)) | {"cost_s": cost_s}
    return found


def judge(device: Device, posterior: Posterior) -> dict[str, float]:
    """Return error, half-width of the model's own 90 % interval and its coverage over the front."""
    times, rows = posterior.network_ms(device.front_shapes())
    errors = np.log([device.truth_ms[name] for name in device.front] / times)
    half = 1.6449 * np.sqrt(posterior.unknowns.variance_of(rows) + posterior.noise_ratio**2)
    return {
        "error": float(np.abs(np.expm1(-errors)).mean()),
        "half_width": float(np.expm1(half).mean()),
        "coverage": float((np.abs(errors) <= half).mean()),
    }


def simulated(space_name: str, seed: int) -> Device:
    """Return a phone whose block times are known only to it."""
    size = 32 if space_name.startswith("tiny") else 512
    frames = 8 if space_name.startswith("tiny") else 16
    scenario = Scenario(frames=frames, height=size, width=size, denoising_steps=4, guidance=False, precision="float16")
    space = search_spaces.get(space_name)
    spec = latency_models.device("iphone16_pro_max")
    workloads = space_workloads(space_name, scenario, seed)
    behaviour = SimulatedBehaviour(seed=seed, block_spread=0.3)
    phone = SimulatedPhone(spec, workloads, behaviour, precision="float16")
    chosen = [network.digest for network in choose_networks(space, NETWORKS + FRONT, RandomStreams(seed))]
    plan = MeasurementPlan(scenario="simulated", passes=1, warmup=8)
    names = [(name, "block") for name in latency_models.distinct_blocks(space, scenario)]
    names += [(digest, "network") for digest in chosen]
    jobs = [MeasurementJob(subject=subject, level=level, make=_nothing) for subject, level in names]  # type: ignore[arg-type]  # both are levels
    profiles = ProfileSet(records=tuple(phone.measure(job, plan, memory=False) for job in jobs))
    return make_device(profiles, workloads, scenario, spec, {digest: phone.true_ms(digest) for digest in chosen})


_CACHE: dict[str, dict[str, Workload]] = {}


def space_workloads(name: str, scenario: Scenario, seed: int) -> dict[str, Workload]:
    """Return workloads that hold every block, and those of a seed's networks."""
    space = search_spaces.get(name)
    if name not in _CACHE:
        _CACHE[name] = fewest_covering(
            {item.digest: space.workload(item, scenario) for item in covering_architectures(space)}
        )
    drawn = choose_networks(space, NETWORKS + FRONT, RandomStreams(seed))
    return _CACHE[name] | {item.digest: space.workload(item, scenario) for item in drawn}


def fewest_covering(workloads: Mapping[str, Workload]) -> dict[str, Workload]:
    """Keep only workloads that bring a block which the ones before lack."""
    seen: set[str] = set()
    kept = {}
    for name, workload in workloads.items():
        signatures = {spec.signature for _, spec in workload.blocks}
        if signatures - seen:
            kept[name] = workload
            seen |= signatures
    return kept


def nearest(times_ms: Mapping[str, float], place: float) -> tuple[str, ...]:
    """Return the networks whose times are nearest a quantile of all: they stand for a front near a budget."""
    middle = float(np.quantile(list(times_ms.values()), place))
    return tuple(sorted(times_ms, key=lambda name: abs(times_ms[name] - middle))[:FRONT])


def host_device(path: Path) -> Device:
    """Return this host, measured once into ``path`` or read from it."""
    from nas.pipeline.calibrate import known_workloads
    from nas.pipeline.context import open_run
    from nas.pipeline.costs import prior_device
    from nas.pipeline.stages import perform

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.yaml").write_text(HOST_RUN.replace("DIRECTORY", folder), encoding="utf-8")
        context = open_run(f"{folder}/run.yaml")
        if not path.is_file():
            with context.directory.lock():
                perform(context, ("profile",), force=False, progress=_Printed, say=print)
            write_text_atomically(path, context.path("profile", "records.jsonl").read_text(encoding="utf-8"))
        profiles = latency_models.read_profile(path)
        workloads = known_workloads(profiles, context)
        spec = prior_device(context)
    subjects = {record.subject for record in profiles.records}
    known = fewest_covering({name: item for name, item in workloads.items() if name not in subjects})
    truth_ms = {item.summary.subject: item.summary.centre_ms for item in observe(profiles).networks}
    return make_device(profiles, known | {name: workloads[name] for name in truth_ms}, context.scenario, spec, truth_ms)


class _Printed:
    """Progress as a line at the end of a stage."""

    def __init__(self, label: str) -> None:
        self._label = label

    def update(self, done: int, total: int, message: str = "") -> None:
        """Print the end."""
        if done >= total:
            print(f"{self._label}: {done} of {total} {message}", flush=True)


def _nothing() -> Any:
    raise AssertionError("the simulated phone builds nothing")


def run(name: str, make: Callable[[int], Device], seeds: int) -> dict[str, Any]:
    """Follow every strategy on every seed's device; return means over seeds by strategy and count."""
    raw: dict[str, dict[int, list[dict[str, float]]]] = {strategy: {} for strategy in STRATEGIES}
    for seed in range(seeds):
        device = make(seed)
        for label, strategy in STRATEGIES.items():
            for count, row in follow(device, strategy, np.random.default_rng(seed)).items():
                raw[label].setdefault(count, []).append(row)
        print(f"{name}: seed {seed} done", flush=True)
    return {
        label: {
            str(count): {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            | {"error_standard_error": float(np.std([row["error"] for row in rows]) / np.sqrt(len(rows)))}
            for count, rows in by_count.items()
        }
        for label, by_count in raw.items()
    }


def host_of_seed(device: Device, seeds: int) -> Callable[[int], Device]:
    """Return one host as several: each seed has another front, of networks around another time."""
    return lambda seed: replace(device, front=nearest(device.truth_ms, 0.2 + 0.6 * seed / max(seeds - 1, 1)))


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a result."""
    lines = [
        "# Which measurement next",
        "",
        f"Front of {FRONT} networks that are never measured; candidates are all blocks and {result['candidates']} "
        f"networks besides. Chosen {STEP} at a time from the device's prior on, fitted again after each {STEP}. A cell "
        "is the mean error of the front / mean half-width of the model's own 90 % interval (its coverage).",
    ]
    for name, table in result["devices"].items():
        counts = list(next(iter(table["strategies"].values())))
        lines += ["", f"## {name}, {table['seeds']} seeds", ""]
        lines += ["| strategy | " + " | ".join(f"N = {count}" for count in counts) + " |"]
        lines += ["| --- |" + " --- |" * len(counts)]
        for label, rows in table["strategies"].items():
            cells = [f"{row['error']:.1%} / {row['half_width']:.1%} ({row['coverage']:.0%})" for row in rows.values()]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += ["", f"{result['taken_at']}, {result['host']}", ""]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--records", type=Path, help="records of this host; measured into this file if it is missing")
    parser.add_argument("--seeds", type=int, default=10, help="simulated phones, and fronts on the host")
    parser.add_argument("--spaces", nargs="*", default=["tiny/1", "snapgen_v/1"], help="spaces of the simulated phone")
    options = parser.parse_args()
    devices = {}
    for space in options.spaces:
        table = run(space, partial(simulated, space), options.seeds)
        devices[f"Simulated phone, {space}"] = {"seeds": options.seeds, "strategies": table}
    if options.records is not None:
        table = run("host", host_of_seed(host_device(options.records), options.seeds), options.seeds)
        devices["This host, tiny/1, replayed"] = {"seeds": options.seeds, "strategies": table}
    result = {
        "taken_at": timestamp(),
        "host": host(),
        "versions": versions(),
        "candidates": f"{NETWORKS} (host: {NETWORKS - FRONT})",
        "devices": devices,
    }
    write_json(options.out / "planning.json", result)
    write_text_atomically(options.out / "planning.md", markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
