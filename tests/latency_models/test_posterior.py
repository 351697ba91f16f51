"""The hierarchical model on planted blocks, networks, OS versions and units whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from latency_models.effects import Effects, Group, KnownBlock, NetworkRows, NetworkShape
from latency_models.posterior import BlockTime, DevicePrior, NetworkTime, Posterior, fit_posterior

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("conv", "attention", "norm", "mlp")
OLD = Group(os_build="22A", compute_unit="neural_engine")
NEW = Group(os_build="23B", compute_unit="neural_engine")
GPU = Group(os_build="22A", compute_unit="gpu")
PRIOR = DevicePrior(factor=4.0, call_overhead_ms=0.1, weights_mb=3.0)


@dataclass
class Planted:
    """A device whose block times are a kind's factor and an own one away from the prior; networks save 10 %."""

    seed: int = 0
    groups: tuple[Group, ...] = (OLD,)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        factor = {kind: float(np.exp(self.random.normal(0.4, 0.3))) for kind in KINDS}
        self.known: dict[str, KnownBlock] = {}
        self.alone: dict[str, float] = {}
        for index in range(32):
            kind, prior_ms = KINDS[index % 4], float(np.exp(self.random.uniform(-1.0, 1.5)))
            name = f"{kind}(size={index})"
            priors = (("neural_engine", prior_ms), ("gpu", 2.0 * prior_ms))
            self.known[name] = KnownBlock(signature=name, kind=kind, prior_ms=priors)
            self.alone[name] = prior_ms * factor[kind] * float(np.exp(self.random.normal(0.0, 0.15)))
        self.effects = Effects(self.known, self.groups)

    def shapes(self, count: int) -> list[NetworkShape]:
        names = sorted(self.known)
        chosen = [self.random.choice(len(names), 8, replace=False) for _ in range(count)]
        return [
            NetworkShape(blocks=tuple(names[i] for i in row), weights_mb=float(self.random.uniform(1, 5)))
            for row in chosen
        ]

    def true_ms(self, shape: NetworkShape, *, speed: float = 1.0) -> float:
        return speed * (0.5 + sum(0.9 * self.alone[name] for name in shape.blocks) + 0.02 * shape.weights_mb)

    def blocks(self, names: Sequence[str] | None = None) -> list[BlockTime]:
        return [
            BlockTime(
                signature=name,
                group=OLD,
                time_ms=self.alone[name] * float(np.exp(self.random.normal(0.0, 0.01))),
                sd_ratio=0.01,
            )
            for name in (sorted(self.known) if names is None else names)
        ]

    def networks(self, count: int, *, group: Group = OLD, speed: float = 1.0) -> list[NetworkTime]:
        return [
            NetworkTime(
                subject=f"{group.os_build}-{index}",
                shape=shape,
                group=group,
                time_ms=self.true_ms(shape, speed=speed) * float(np.exp(self.random.normal(0.0, 0.01))),
            )
            for index, shape in enumerate(self.shapes(count))
        ]

    def errors(self, posterior: Posterior, *, group: Group = OLD, speed: float = 1.0) -> np.ndarray:
        fresh = self.shapes(60)
        predicted, _ = posterior.network_ms([(shape, group) for shape in fresh])
        truth = np.array([self.true_ms(shape, speed=speed) for shape in fresh])
        return np.log(predicted / truth)


def test_unseen_networks_of_a_planted_device_are_predicted() -> None:
    planted = Planted()
    posterior = fit_posterior(planted.effects, planted.blocks(), planted.networks(20), PRIOR)
    assert np.abs(planted.errors(posterior)).mean() < 0.012
    assert posterior.outliers == ()


def test_networks_repair_blocks_that_nobody_measured() -> None:
    planted = Planted()
    measured = planted.blocks(sorted(planted.known)[::2])
    without = fit_posterior(planted.effects, measured, planted.networks(1), PRIOR)
    with_networks = fit_posterior(planted.effects, measured, planted.networks(30), PRIOR)
    assert np.abs(planted.errors(with_networks)).mean() < 0.5 * np.abs(planted.errors(without)).mean()


def test_stated_uncertainty_is_that_of_the_errors() -> None:
    standardised = []
    for seed in range(8):
        planted = Planted(seed=seed)
        posterior = fit_posterior(
            planted.effects, planted.blocks(sorted(planted.known)[::2]), planted.networks(10), PRIOR
        )
        fresh = planted.shapes(40)
        predicted, rows = posterior.network_ms([(shape, OLD) for shape in fresh])
        sd = np.sqrt(posterior.unknowns.variance_of(rows))
        standardised += list(np.log([planted.true_ms(shape) for shape in fresh] / predicted) / sd)
    # Networks of one seed share their blocks, so the tolerance is that of far fewer than 320 draws.
    assert np.mean(np.abs(standardised) < 1.645) == pytest.approx(0.9, abs=0.08)


def test_a_network_measured_wrong_is_named_and_hardly_counts() -> None:
    planted = Planted()
    blocks, networks = planted.blocks(), planted.networks(20)
    networks[3] = replace(networks[3], time_ms=2.0 * networks[3].time_ms)
    posterior = fit_posterior(planted.effects, blocks, networks, PRIOR)
    assert posterior.outliers == ("22A-3",)
    assert np.abs(planted.errors(posterior)).mean() < 0.015


def test_a_block_measured_wrong_is_overruled_by_networks_and_named() -> None:
    planted = Planted()
    blocks, networks = planted.blocks(), planted.networks(30)
    blocks[0] = replace(blocks[0], time_ms=1.6 * blocks[0].time_ms)
    posterior = fit_posterior(planted.effects, blocks, networks, PRIOR)
    assert blocks[0].signature in posterior.outliers
    within_ms = posterior.block_ms([(blocks[0].signature, OLD)])[0]
    assert within_ms == pytest.approx(0.9 * planted.alone[blocks[0].signature], rel=0.12)


def test_the_order_of_measurements_does_not_matter() -> None:
    planted = Planted()
    blocks, networks = planted.blocks(), planted.networks(12)
    one = fit_posterior(planted.effects, blocks, networks, PRIOR)
    other = fit_posterior(planted.effects, blocks[::-1], networks[::-1], PRIOR)
    np.testing.assert_allclose(one.unknowns.mean, other.unknowns.mean, atol=1e-4)


def test_five_networks_on_a_new_os_move_the_whole_table() -> None:
    planted = Planted(groups=(OLD, NEW))
    networks = planted.networks(20) + planted.networks(5, group=NEW, speed=1.2)
    posterior = fit_posterior(planted.effects, planted.blocks(), networks, PRIOR)
    names = sorted(planted.known)
    moved = posterior.block_ms([(name, NEW) for name in names]) / posterior.block_ms([(name, OLD) for name in names])
    assert np.median(moved) == pytest.approx(1.2, abs=0.03)
    assert moved.min() > 1.1
    assert np.abs(planted.errors(posterior, group=NEW, speed=1.2)).mean() < 0.025
    assert np.abs(planted.errors(posterior)).mean() < 0.015


def test_an_os_without_records_is_priced_like_the_others_with_more_doubt() -> None:
    planted = Planted(groups=(OLD, NEW))
    posterior = fit_posterior(planted.effects, planted.blocks(), planted.networks(20), PRIOR)
    shape = planted.shapes(1)[0]
    times, rows = posterior.network_ms([(shape, OLD), (shape, NEW)])
    assert times[1] == pytest.approx(times[0], rel=0.1)
    variances = posterior.unknowns.variance_of(rows)
    assert variances[1] > 4.0 * variances[0]


def test_one_record_of_an_os_moves_it_less_than_all_the_way() -> None:
    planted = Planted(groups=(OLD, NEW))
    noisy = replace(planted.networks(1, group=NEW, speed=1.2)[0], sd_ratio=0.15)
    posterior = fit_posterior(planted.effects, planted.blocks(), [*planted.networks(20), noisy], PRIOR)
    shape = planted.shapes(1)[0]
    times, _ = posterior.network_ms([(shape, OLD), (shape, NEW)])
    assert 1.0 < times[1] / times[0] < 1.15


def test_a_few_blocks_on_another_unit_say_how_its_other_blocks_do() -> None:
    planted = Planted(groups=(OLD, GPU))
    names = sorted(planted.known)
    gpu = [
        BlockTime(signature=name, group=GPU, time_ms=3.0 * planted.alone[name], sd_ratio=0.01) for name in names[::4]
    ]
    posterior = fit_posterior(planted.effects, [*planted.blocks(), *gpu], planted.networks(20), PRIOR)
    unseen = [name for name in names if name not in names[::4]]
    ratios = posterior.block_ms([(name, GPU) for name in unseen]) / posterior.block_ms([(name, OLD) for name in unseen])
    assert np.median(ratios) == pytest.approx(3.0, rel=0.1)


def test_a_network_that_was_stopped_is_predicted_beyond_its_limit() -> None:
    planted = Planted()
    measured = [name for name in sorted(planted.known) if not name.startswith("mlp")]
    blocks, networks = planted.blocks(measured), []
    shape = NetworkShape(blocks=tuple(name for name in planted.known if name.startswith("mlp")), weights_mb=1.0)
    before, _ = fit_posterior(planted.effects, blocks, networks, PRIOR).network_ms([(shape, OLD)])
    stopped = NetworkTime(subject="stopped", shape=shape, group=OLD, time_ms=1.8 * float(before[0]), exceeded=True)
    after, _ = fit_posterior(planted.effects, blocks, [stopped], PRIOR).network_ms([(shape, OLD)])
    harmless = replace(stopped, time_ms=0.05 * float(before[0]))
    same, _ = fit_posterior(planted.effects, blocks, [harmless], PRIOR).network_ms([(shape, OLD)])
    assert after[0] > 1.5 * before[0]
    assert same[0] == pytest.approx(before[0], rel=0.01)


def test_a_block_that_was_stopped_raises_its_own_kind() -> None:
    planted = Planted()
    blocks = planted.blocks([name for name in sorted(planted.known) if not name.startswith("mlp")])
    victim, sibling = [name for name in sorted(planted.known) if name.startswith("mlp")][:2]
    free = fit_posterior(planted.effects, blocks, [], PRIOR)
    limit_ms = 3.0 * float(free.block_ms([(victim, OLD)])[0])
    stopped = BlockTime(signature=victim, group=OLD, time_ms=limit_ms, exceeded=True)
    found = fit_posterior(planted.effects, [*blocks, stopped], [], PRIOR)
    items = [(victim, OLD), (sibling, OLD)]
    assert (found.block_ms(items) > 1.3 * free.block_ms(items)).all()


def test_left_out_scores_equal_those_of_a_fit_without_the_block() -> None:
    planted = Planted()
    blocks = planted.blocks()
    # Without the time of a call the logarithms are linear in the unknowns.
    full = fit_posterior(planted.effects, blocks, [], replace(PRIOR, call_overhead_ms=1e-9))
    items = [(block.signature, OLD) for block in blocks]
    rows = planted.effects.own_rows(items)
    prior_log = np.array([planted.effects.prior_log_ms(name, group.compute_unit) for name, group in items])
    sd = np.zeros(len(planted.effects))
    for family, index in planted.effects.families().items():
        if family in ("kind", "block"):
            sd[index] = full.spreads[family]
    sd[planted.effects.index("device")] = np.log(PRIOR.factor) / 1.6449
    values = np.log([block.time_ms for block in blocks]) - prior_log
    covariance = rows @ np.diag(sd**2) @ rows.T
    others = np.arange(1, len(blocks))
    seen = covariance[np.ix_(others, others)] + 0.01**2 * np.eye(len(others))
    predicted = covariance[0, others] @ np.linalg.solve(seen, values[others])
    assert full.block_scores[0] == pytest.approx(abs(values[0] - predicted), rel=1e-3)


def test_the_call_that_blocks_alone_pay_for_is_taken_off_within_networks() -> None:
    planted = Planted(seed=1)
    small = {name: 0.2 * time_ms for name, time_ms in planted.alone.items()}
    planted.known = {
        name: replace(block, prior_ms=tuple((unit, 0.2 * ms) for unit, ms in block.prior_ms))
        for name, block in planted.known.items()
    }
    planted.effects, planted.alone = Effects(planted.known, planted.groups), small
    blocks = [replace(block, time_ms=block.time_ms + 0.5) for block in planted.blocks()]
    posterior = fit_posterior(planted.effects, blocks, planted.networks(20), replace(PRIOR, call_overhead_ms=0.3))
    assert np.abs(planted.errors(posterior)).mean() < 0.03
    assert posterior.value("call") == pytest.approx(0.5, abs=0.15)


def test_derivatives_of_network_times_equal_finite_differences() -> None:
    planted = Planted(groups=(OLD, NEW, GPU))
    rows = NetworkRows(planted.effects, [(shape, group) for shape in planted.shapes(2) for group in (NEW, GPU)])
    at = np.random.default_rng(3).normal(0.0, 0.1, len(planted.effects))
    _, derivatives = rows.times_ms(at)
    step = 1e-6
    for index in range(0, len(planted.effects), 7):
        moved = at.copy()
        moved[index] += step
        slope = (rows.times_ms(moved)[0] - rows.times_ms(at)[0]) / step
        np.testing.assert_allclose(derivatives[:, index], slope, atol=1e-4)
