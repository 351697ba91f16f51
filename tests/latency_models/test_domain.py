"""Networks unlike the calibration networks are told apart, with the reason, one by one and in bulk."""

from __future__ import annotations

import re
from dataclasses import replace
from math import log

import numpy as np
import pytest

from latency_models.domain import Domain, SummedDistances, fit_domain
from latency_models.pricing import BlockPrice, IntervalRatios, WorkloadPrice, outside_reason


def make_price(counts: dict[str, int], *, block_ms: float = 2.0, weights_mb: float = 10.0) -> WorkloadPrice:
    blocks = tuple(
        BlockPrice(
            block=f"{kind}{index}",
            latency_ms=block_ms,
            activation_mb=1.0,
            compute_unit="cpu",
            in_domain=True,
            kind=kind,
        )
        for kind, count in counts.items()
        for index in range(count)
    )
    return WorkloadPrice(blocks=blocks, overhead_ms=1.0, weights_mb=weights_mb, parameters=1)


def draw_price(generator: np.random.Generator) -> WorkloadPrice:
    counts = {"base": 4, "thin": int(generator.integers(6)), "wide": int(generator.integers(6))}
    return make_price(counts, block_ms=float(generator.uniform(1, 3)), weights_mb=float(generator.uniform(5, 15)))


@pytest.fixture
def domain() -> Domain:
    generator = np.random.default_rng(0)
    found = fit_domain([draw_price(generator) for _ in range(30)])
    assert found is not None
    return found


def test_networks_drawn_alike_lie_inside_but_for_one_in_n_plus_one() -> None:
    generator = np.random.default_rng(1)
    outside = []
    for _ in range(120):
        found = fit_domain([draw_price(generator) for _ in range(19)])
        assert found is not None
        outside += [found.distance(draw_price(generator)) > found.limit for _ in range(5)]
    # 1/20; 600 draws in groups of five: four standard errors of the 120 groups are at most 0.08.
    assert np.mean(outside) < 0.05 + 0.05


def test_distance_is_that_of_mahalanobis_for_many_networks_of_full_rank() -> None:
    generator = np.random.default_rng(2)
    prices = [draw_price(generator) for _ in range(3000)]
    found = fit_domain_of_many(prices)
    table = np.array([found.figures(price.blocks, price.weights_mb) for price in prices])
    varying = table.std(axis=0) > 0.2
    # ms and counts of one kind are not collinear here, as the time of a block differs between networks.
    centred = table[:, varying] - table[:, varying].mean(axis=0)
    exact = np.sqrt(np.einsum("ni,ij,nj->n", centred, np.linalg.inv(np.cov(centred.T)), centred))
    ours = np.array([found.distance(price) for price in prices])
    assert np.corrcoef(ours, exact)[0, 1] > 0.99
    assert np.median(ours / exact) == pytest.approx(1.0, abs=0.05)


def fit_domain_of_many(prices: list[WorkloadPrice]) -> Domain:
    """Fit without the thousands of fits that leave one out."""
    small = fit_domain(prices[:30])
    assert small is not None
    from latency_models import domain as module

    table = np.array([small.figures(price.blocks, price.weights_mb) for price in prices])
    least = np.maximum(0.5 * table.std(axis=0), 0.05 * np.abs(table.mean(axis=0)))
    centre, whitening = module._cloud(table, least)
    return replace(small, centre=tuple(centre), whitening=tuple(map(tuple, whitening)))


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"base": 4, "thin": 50, "wide": 2}, r"time in thin blocks [\d.]+x the largest calibration network's"),
        ({"base": 4, "thin": 2, "other": 1}, "no calibration network holds a block of kind 'other'"),
        ({"base": 9}, r"number of base blocks 2.2x the largest.*\(distance \d+, limit \d"),
        ({}, r"a mix of layers unlike the calibration networks' \(distance"),
    ],
)
def test_reason_names_what_lies_beyond(domain: Domain, counts: dict[str, int], reason: str) -> None:
    assert re.search(reason, domain.reason(make_price(counts)))


def test_inside_there_is_no_reason_and_no_stretch(domain: Domain) -> None:
    price = make_price({"base": 4, "thin": 3, "wide": 2})
    assert domain.reason(price) == ""
    assert domain.stretch(domain.distance(price)) == 1.0


def test_missing_blocks_and_distance_are_told_together(domain: Domain) -> None:
    price = make_price({"base": 4, "thin": 50})
    price = replace(price, blocks=(replace(price.blocks[0], in_domain=False), *price.blocks[1:]))
    ratios = IntervalRatios(coverage=0.9, latency=(0.9, 1.1), outside=(0.5, 2.0), memory=(0.9, 1.1), domain=domain)
    assert outside_reason(price, ratios).startswith("1 of 54 blocks not measured; ")
    assert "thin" in outside_reason(price, ratios)


def test_ends_move_out_with_the_distance_up_to_the_wide_interval(domain: Domain) -> None:
    ratios = IntervalRatios(coverage=0.9, latency=(1 / 1.1, 1.1), outside=(0.8, 1.25), memory=(1.0, 1.0), domain=domain)
    low, high = ratios.latency_at(domain.limit * np.array([0.5, 1.0, 2.0, 2.9, 100.0]))
    # 1.1 ** 2 = 1.21; 1.1 ** 2.9 would be 1.32.
    assert high == pytest.approx([1.1, 1.1, 1.21, 1.25, 1.25])
    assert np.log(low) == pytest.approx([-log(1.1), -log(1.1), -log(1.21), log(0.8), log(0.8)])


def test_summed_distances_equal_those_one_by_one(domain: Domain) -> None:
    generator = np.random.default_rng(3)
    base = make_price({"base": 4})
    slots = [[{}, {"thin": 1}, {"wide": 2}, {"thin": 2, "other": 1}], [{}, {"wide": 1}, {"thin": 3}]]
    parts = [
        np.array([domain.figures(make_price(option, block_ms=1.5).blocks, 0.5 * len(option)) for option in options])
        for options in slots
    ]
    summed = SummedDistances.of_parts(domain, domain.figures(base.blocks, base.weights_mb), parts)
    chosen = np.column_stack([generator.integers(4, size=30), generator.integers(3, size=30)])
    for row, distance in zip(chosen, summed.of(chosen), strict=True):
        blocks = base.blocks
        weights_mb = base.weights_mb
        for options, option in zip(slots, row, strict=True):
            blocks += make_price(options[option], block_ms=1.5).blocks
            weights_mb += 0.5 * len(options[option])
        assert distance == pytest.approx(domain.distance(replace(base, blocks=blocks, weights_mb=weights_mb)))


def test_a_cloud_needs_three_networks() -> None:
    assert fit_domain([make_price({"base": 1})] * 2) is None


def test_a_kind_that_one_network_alone_holds_leaves_the_limit_finite() -> None:
    generator = np.random.default_rng(4)
    found = fit_domain([*(draw_price(generator) for _ in range(11)), make_price({"base": 4, "rare": 1})])
    assert found is not None
    assert found.limit < 30.0
