"""Do 90 % intervals hold: for single blocks, random networks, and the networks that a search selected.

    python benchmarks/interval_coverage.py --out benchmarks/results
    python benchmarks/interval_coverage.py --out benchmarks/results --host sessions --host-sessions 8

The first part runs on the simulated phone, whose truth is known: block and network records carry noise that a profile
cannot average away, and every network a hidden factor that no sum over blocks can know. Each seed is another phone. Two
predictors are judged: the calibrated one, and a plain block table (sum of measured block times, one scale), which
believes its noisy table. The second part measures ``tiny`` on this host in several sessions (kept in the folder of
``--host``, gone on with when interrupted), calibrates on 24 networks of one session and judges on 40 others in another.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import search_spaces
from latency_models import (
    CalibrationOptions,
    MeasurementJob,
    MeasurementPlan,
    calibrate,
    choose_networks,
    compile_cost_table,
    devices,
    distinct_blocks,
    measure_all,
)
from latency_models.backends.simulated import SimulatedBehaviour, SimulatedPhone
from latency_models.conformal import conformal_quantile
from latency_models.profiles import call_label, read_profile
from latency_models.refits import draw_predictors, drawn_latencies_ms
from latency_models.selection import bounded_selection, jackknife_draws, replay_selection
from latency_models.summaries import anchor_reference, summarise_all
from nas.core.files import write_json, write_text_atomically
from nas.core.pareto import non_dominated
from nas.core.profile import ProfileSet
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from latency_models.selection import Correction
    from latency_models.summaries import Summary
    from nas.core.architecture import Architecture
    from nas.core.workload import Workload

COVERAGE = 0.9
NETWORKS = 24
JUDGED = 24
POOL = 600
PASSES = 3
DRAWS = 16
REPLAYS = 60
SPACE = search_spaces.get("tiny")
SCENARIO = Scenario(
    frames=8, height=32, width=32, denoising_steps=4, guidance=False, precision="float32", compute_units="cpu_only"
)
DEVICE = devices.get("host_cpu")
PLAN = MeasurementPlan(scenario=call_label(SCENARIO), passes=PASSES, warmup=6)
NOISE = {
    "noisy blocks": SimulatedBehaviour(record_noise_ratio=0.02, block_noise_ratio=0.3, interaction_ratio=0.015),
    "quiet": SimulatedBehaviour(record_noise_ratio=0.02, interaction_ratio=0.015),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What one predictor says of the pool: latencies (ms), held-out log residuals, draws of its own errors."""

    latency_ms: Any
    residuals: Any
    half_width: float
    draws: Any


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--seeds", type=int, default=30, help="simulated phones with noisy blocks")
    parser.add_argument("--quiet-seeds", type=int, default=10, help="quiet ones, for comparison")
    parser.add_argument("--host", type=Path, help="folder of the sessions measured on this host; left out without")
    parser.add_argument("--host-sessions", type=int, default=8, help="sessions to measure on this host")
    parser.add_argument("--splits", type=int, default=10, help="random choices of 24 networks for each host session")
    options = parser.parse_args()
    start = time.process_time()
    result: dict[str, Any] = {"taken_at": timestamp(), "host": host(), "versions": versions()}
    if options.host:
        result["measured"] = judge_host(options.host, options.host_sessions, options.splits)
    result["simulated"] = {}
    seeds = {"noisy blocks": options.seeds, "quiet": options.quiet_seeds}
    for name, behaviour in NOISE.items():
        rows = []
        for seed in range(seeds[name]):
            rows.append(judge_phone(behaviour, seed, name))
            if len(rows) > 1:  # after every phone, so that an interrupted run leaves what it has
                result["simulated"][name] = summed(rows)
                result["cpu_seconds"] = round(time.process_time() - start)
                write_json(options.out / "interval_coverage.json", result)
                write_text_atomically(options.out / "interval_coverage.md", markdown(result))
    print(markdown(result))


def judge_phone(behaviour: SimulatedBehaviour, seed: int, label: str) -> dict[str, tuple[float, float]]:
    """Return (share covered, half-width of the logarithm) of each kind of interval on one simulated phone."""
    rng = np.random.default_rng(seed)
    behaviour = replace(behaviour, seed=seed)
    networks = choose_networks(SPACE, NETWORKS, RandomStreams(seed))
    workloads = {network.digest: workload(network) for network in networks}
    profiles = profile(behaviour, networks, blocks=True)
    predictor, report = calibrate(profiles, workloads, SCENARIO, DEVICE, CalibrationOptions(seed=seed))
    found = judge_blocks(behaviour, profiles, report.block_check)

    options = draw_pool(rng)
    table = compile_cost_table(SPACE, SCENARIO, predictor)
    scores = table.score(options)
    drawn = draw_predictors(predictor, profiles, workloads, SCENARIO, DEVICE, count=DRAWS, rng=rng)
    others = SCENARIO.denoiser_calls * drawn_latencies_ms(drawn, SPACE, SCENARIO, options)
    calibrated = Predicted(
        latency_ms=scores.latency_ms,
        residuals=np.array([np.log(row.measured_ms / row.predicted_ms) for row in report.networks]),
        half_width=float(np.log(predictor.ratios.latency[1])),
        draws=jackknife_draws(others, scores.latency_ms, inflation=1.0),
    )
    quality = draw_quality(behaviour, options, rng)
    judged = {
        "calibrated": calibrated,
        "plain table": plain_table(profiles, networks, options, rng),
    }
    for name, predicted in judged.items():
        select = selector(scores.peak_memory_mb, quality)
        found |= judge_pool(behaviour, predicted, options, select, rng, name)
    print(f"{label} {seed}: " + ", ".join(f"{key} {share:.2f}" for key, (share, _) in found.items()), flush=True)
    return found


def profile(behaviour: SimulatedBehaviour, networks: Sequence[Architecture], *, blocks: bool) -> ProfileSet:
    """Measure networks, and every block of the space, on a simulated phone."""
    known = {network.digest: workload(network) for network in (*networks, *(SINGLES if blocks else ()))}
    phone = SimulatedPhone(DEVICE, known, behaviour, precision="float32", compute_units="cpu_only")
    jobs = [MeasurementJob(subject=network.digest, level="network", make=unbuilt) for network in networks]
    if blocks:
        jobs += [MeasurementJob(subject=name, level="block", make=unbuilt) for name in BLOCKS]
    # Straight from the phone, whose speed does not drift here: no file, no order, no second attempts.
    return ProfileSet(records=tuple(phone.measure(job, PLAN) for _ in range(PASSES) for job in jobs))


def judge_blocks(behaviour: SimulatedBehaviour, profiles: ProfileSet, check: Any) -> dict[str, tuple[float, float]]:
    """Hold a fresh record of every block against its interval; blocks not measured are those of the calibration."""
    known = {network.digest: workload(network) for network in SINGLES}
    later = replace(behaviour, session=1)
    phone = SimulatedPhone(DEVICE, known, later, precision="float32", compute_units="cpu_only")
    width = float(np.log(check.repeat_ratio))
    errors = [
        np.log(np.median(phone.measure(job, PLAN, memory=False).steady_ms) / block.centre_ms)
        for block in block_summaries(profiles).values()
        for job in [MeasurementJob(subject=block.subject, level="block", make=unbuilt)]
    ]
    return {
        "blocks, measured": (float(np.mean(np.abs(errors) <= width)), width),
        "blocks, not measured": (check.prior_coverage, float(np.log(check.prior_ratio))),
    }


def block_summaries(profiles: ProfileSet) -> dict[str, Summary]:
    """Return the summaries of the blocks at the profile's own machine speed."""
    return summarise_all(profiles.of_level("block"), reference=anchor_reference(profiles, "block"))


def draw_pool(rng: np.random.Generator) -> Any:
    """Return distinct candidates as option indices, from sparse to full."""
    counts = [len(SPACE.options(slot)) for slot in SPACE.slots()]
    options = rng.integers(counts, size=(POOL, len(counts)))
    options[rng.random(options.shape) < rng.random((POOL, 1))] = 0
    return np.unique(options, axis=0)


def draw_quality(behaviour: SimulatedBehaviour, options: Any, rng: np.random.Generator) -> Any:
    """Return qualities that grow with what each layer truly costs, with luck: good layers are not cheap ones."""
    phone = SimulatedPhone(
        DEVICE,
        {network.digest: workload(network) for network in SINGLES},
        replace(behaviour, interaction_ratio=0.0),
        precision="float32",
        compute_units="cpu_only",
    )
    slots, count = options.shape[1], len(SINGLES) // options.shape[1]
    cost = np.array([phone.true_ms(network.digest) for network in SINGLES]).reshape(slots, count)
    worth = np.sqrt(np.maximum(cost - cost[:, :1], 0.0)) * np.exp(0.1 * rng.standard_normal(cost.shape))
    return worth[np.arange(slots), options].sum(axis=1)


def selector(memory_mb: Any, quality: Any) -> Callable[[Any], Any]:
    """Return what takes predicted latencies to the indices of the front."""

    def select(latency_ms: Any) -> Any:
        return np.array(non_dominated(np.column_stack([latency_ms, memory_mb, -quality]).tolist()))

    return select


def plain_table(
    profiles: ProfileSet, networks: Sequence[Architecture], options: Any, rng: np.random.Generator
) -> Predicted:
    """Predict by the sum of measured block times and one scale, with draws from tables that lack one pass each."""
    passes = {name: np.log(item.centres_ms) for name, item in block_summaries(profiles).items()}
    measured = summarise_all(profiles.of_level("network"), reference=anchor_reference(profiles, "network"))
    times = np.array([measured[network.digest].centre_ms for network in networks])
    own = np.array([SPACE.to_options(network) for network in networks])

    def predict(table: dict[str, float], rows: Any, *, without: int | None = None) -> Any:
        sums = summed_table(table, np.vstack([own, rows]))
        scale = np.median(np.delete(np.log(times / sums[: len(own)]), [] if without is None else [without]))
        return np.exp(scale) * sums[len(own) :]

    centre = {name: float(np.exp(values.mean())) for name, values in passes.items()}
    left_out = [predict(centre, own[i : i + 1], without=i)[0] for i in range(len(own))]
    residuals = np.log(times / left_out)
    drawn = []
    for _ in range(DRAWS):
        lacking = {
            name: float(np.exp(np.delete(values, rng.integers(len(values))).mean())) for name, values in passes.items()
        }
        drawn.append(predict(lacking, options))
    predicted = predict(centre, options)
    return Predicted(
        latency_ms=SCENARIO.denoiser_calls * predicted,
        residuals=residuals,
        half_width=conformal_quantile(np.abs(residuals), COVERAGE, interpolated=True),
        draws=jackknife_draws(drawn, predicted, inflation=PASSES - 1.0),
    )


def summed_table(table: dict[str, float], options: Any) -> Any:
    """Return the sum of block times of networks given as option indices."""
    base = sum(table[name] for name in SIGNATURES[0])
    count = len(SINGLES) // options.shape[1]
    added = np.array([sum(table[name] for name in names) - base for names in SIGNATURES])
    return base + added[np.arange(options.shape[1]) * count + options].sum(axis=1)


def judge_pool(
    behaviour: SimulatedBehaviour, predicted: Predicted, options: Any, select: Any, rng: Any, name: str
) -> dict[str, tuple[float, float]]:
    """Return coverage in a fresh session of random networks and of the front with each correction."""
    front = select(predicted.latency_ms)
    some = {"random": rng.permutation(len(options))[:JUDGED], "front": rng.permutation(front)[:JUDGED]}
    fresh = {index: SPACE.from_options(options[index].tolist()) for rows in some.values() for index in rows}
    records = profile(
        replace(behaviour, session=2), list({net.digest: net for net in fresh.values()}.values()), blocks=False
    )
    measured = summarise_all(records.records, reference=anchor_reference(records, "network"))
    errors = {
        which: np.array(
            [
                np.log(SCENARIO.denoiser_calls * measured[fresh[index].digest].centre_ms / predicted.latency_ms[index])
                for index in rows
            ]
        )
        for which, rows in some.items()
    }
    shared = {"half_width": predicted.half_width, "coverage": COVERAGE, "replays": REPLAYS}
    centre = predicted.latency_ms
    corrections = {
        "front, replayed": replay_selection(
            centre, select, predicted.residuals, rng=rng, estimation_errors=predicted.draws, **shared
        ),
        "front, worst case": replay_selection(centre, select, predicted.residuals, rng=rng, **shared),
        "front, bound": bounded_selection(
            predicted.residuals, selected=len(front), pool=len(options), coverage=COVERAGE
        ),
    }
    width = predicted.half_width
    found = {
        f"{name}: random networks": (float(np.mean(np.abs(errors["random"]) <= width)), width),
        f"{name}: front, uncorrected": (float(np.mean(np.abs(errors["front"]) <= width)), width),
    }
    for label, correction in corrections.items():
        found[f"{name}: {label}"] = covered(errors["front"], correction, width)
    return found


def covered(errors: Any, correction: Correction, width: float) -> tuple[float, float]:
    """Return the share of errors inside corrected intervals and their half-width."""
    low = np.log(correction.low_shift_ratio) - correction.widening_ratio * width
    high = np.log(correction.high_shift_ratio) + correction.widening_ratio * width
    return float(np.mean((errors >= low) & (errors <= high))), float(high - low) / 2


def summed(rows: Sequence[dict[str, tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Return mean coverage, its standard error over seeds and the mean half-width of each kind of interval."""
    return {
        key: {
            "coverage": float(np.mean([row[key][0] for row in rows])),
            "standard_error": float(np.std([row[key][0] for row in rows], ddof=1) / len(rows) ** 0.5),
            "worst": float(min(row[key][0] for row in rows)),
            "half_width": float(np.mean([row[key][1] for row in rows])),
            "count": len(rows),
        }
        for key in rows[0]
    }


def judge_host(folder: Path, sessions: int, splits: int) -> dict[str, dict[str, float]]:
    """Measure what sessions lack, then calibrate on one session and judge on all others."""
    networks = choose_networks(SPACE, NETWORKS + 40, RandomStreams(7))
    records = [measure_session(folder, number, networks) for number in range(sessions)]
    reference = anchor_reference(records[0], "network")
    times = np.array(
        [
            [summary.centre_ms for summary in found.values()]
            for found in (
                {
                    net.digest: summarise_all(item.of_level("network"), reference=reference)[net.digest]
                    for net in networks
                }
                for item in records
            )
        ]
    )
    rows = []
    for number in range(sessions):
        for split in range(splits):
            rows += judge_split(records, times, networks, number, split, reference)
    return summed(rows)


def judge_split(
    records: Sequence[ProfileSet],
    times: Any,
    networks: Sequence[Architecture],
    number: int,
    split: int,
    reference: Any,
) -> list[dict[str, tuple[float, float]]]:
    """Calibrate on 24 networks of session ``number`` and judge the others in every other session."""
    rng = np.random.default_rng([number, split])
    order = rng.permutation(len(networks))
    known, fresh = [networks[i] for i in order[:NETWORKS]], order[NETWORKS:]
    digests = {network.digest for network in known}
    blocks = next(item.of_level("block") for item in records[number::-1] if item.of_level("block"))
    own = tuple(record for record in records[number].of_level("network") if record.subject in digests)
    profiles = ProfileSet(records=(*blocks, *own))
    workloads = {network.digest: workload(network) for network in known}
    predictor, report = calibrate(profiles, workloads, SCENARIO, DEVICE, CalibrationOptions(seed=split))
    options = np.array([SPACE.to_options(networks[i]) for i in fresh])
    table = compile_cost_table(SPACE, SCENARIO, predictor)
    scores = table.score(options)
    anchor = predictor.model.network_anchor
    speed = anchor.time_ms / reference.time_ms if anchor else 1.0
    predicted = scores.latency_ms / SCENARIO.denoiser_calls / speed
    width = float(np.log(predictor.ratios.latency[1]))
    residuals = np.array([np.log(row.measured_ms / row.predicted_ms) for row in report.networks])
    flops = np.array([sum(item.flops for item in workload(networks[i]).operations) for i in fresh], dtype=float)
    select = selector(scores.peak_memory_mb, flops)
    drawn = draw_predictors(predictor, profiles, workloads, SCENARIO, DEVICE, count=DRAWS, rng=rng)
    others = SCENARIO.denoiser_calls * drawn_latencies_ms(drawn, SPACE, SCENARIO, options)
    correction = replay_selection(
        predicted,
        select,
        residuals,
        half_width=width,
        coverage=COVERAGE,
        rng=rng,
        estimation_errors=jackknife_draws(others, scores.latency_ms, inflation=1.0),
        replays=REPLAYS,
    )
    front = select(predicted)
    found = []
    for other in range(len(records)):
        if other != number:
            errors = np.log(times[other, fresh] / predicted)
            found.append(
                {
                    "unseen networks, another session": (float(np.mean(np.abs(errors) <= width)), width),
                    "front of them, uncorrected": (float(np.mean(np.abs(errors[front]) <= width)), width),
                    "front of them, replayed": covered(errors[front], correction, width),
                }
            )
    return found


def measure_session(folder: Path, number: int, networks: Sequence[Architecture]) -> ProfileSet:
    """Measure one session on this host, blocks in every fourth, or read what is there."""
    from latency_models.backends.torch_host import TorchHostBackend
    from nas.pipeline.networks import block_job, network_jobs

    path = folder / f"session{number}.jsonl"
    anchor = network_jobs(SPACE, [SPACE.smallest()], SCENARIO, "cpu")[0]
    backend = TorchHostBackend("cpu", threads=1, network_anchor=anchor)
    jobs = network_jobs(SPACE, networks, SCENARIO, "cpu")
    if number % 4 == 0:
        jobs += [block_job(spec, SCENARIO, "cpu") for spec in distinct_blocks(SPACE, SCENARIO).values()]
    plan = MeasurementPlan(scenario=call_label(SCENARIO), seed=1000 + number, measure_memory=number == 0)
    if path.is_file() and len(
        read_profile(path, scenario=plan.scenario, device="host-cpu").records
    ) >= plan.passes * len(jobs):
        return read_profile(path, scenario=plan.scenario, device="host-cpu")
    return measure_all(backend, jobs, plan, path)


def workload(network: Architecture) -> Workload:
    """Return a network's workload, each worked out once."""
    if network.digest not in _WORKLOADS:
        _WORKLOADS[network.digest] = SPACE.workload(network, SCENARIO)
    return _WORKLOADS[network.digest]


def unbuilt() -> Any:
    """Stand for a network that a simulated phone does not build."""
    raise AssertionError("a simulated phone builds nothing")


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a result."""
    lines = [
        "# Coverage of 90 % intervals",
        "",
        f"Simulated: `tiny` on the simulated phone, {NETWORKS} "
        f"networks and all {len(BLOCKS)} blocks measured in {PASSES} passes, {POOL} candidates, {JUDGED} random and "
        f"{JUDGED} front members measured in another session. Records carry 2 % that no "
        "samples average away, those of noisy blocks 30 % more, networks a hidden factor of 1.5 %.",
    ]
    for name, rows in result["simulated"].items():
        lines += ["", f"## Simulated phone, {name}: {count_of(rows)} phones", "", *table_lines(rows, "phone")]
    if "measured" in result:
        lines += [
            "",
            "## This host",
            "",
            f"`tiny` on host-cpu, {count_of(result['measured'])} cases: calibrated on {NETWORKS} networks of one "
            "session, judged on 40 others in another; front by latency, memory and FLOPs.",
            "",
            *table_lines(result["measured"], "pair of sessions and split"),
        ]
    lines += ["", f"{result['taken_at']}, {result['host']}, {result['cpu_seconds']} s of processor time", ""]
    return "\n".join(lines)


def count_of(rows: dict[str, dict[str, float]]) -> int:
    """Return how many phones, or pairs of sessions, each row is a mean of."""
    return int(next(iter(rows.values()))["count"])


def table_lines(rows: dict[str, dict[str, float]], unit: str) -> list[str]:
    """Return rows of a Markdown table."""
    return [
        f"| intervals of | coverage (standard error) | worst {unit} | half-width |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {row['coverage']:.1%} ({row['standard_error']:.1%}) | {row['worst']:.0%} "
            f"| {np.expm1(row['half_width']):.1%} |"
            for name, row in rows.items()
        ),
    ]


_WORKLOADS: dict[str, Workload] = {}
BLOCKS = distinct_blocks(SPACE, SCENARIO)
# Every option of every slot on its own: slot after slot, option after option.
SINGLES = [
    SPACE.from_options([option if other == slot else 0 for other in range(len(SPACE.slots()))])
    for slot, name in enumerate(SPACE.slots())
    for option in range(len(SPACE.options(name)))
]
SIGNATURES = [[spec.signature for _, spec in workload(network).blocks] for network in SINGLES]


if __name__ == "__main__":
    main()
