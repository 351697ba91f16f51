"""The choice of forms against every plan there is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from nas.export.compression.plans import Option, choose, smallest_bytes


def random_options(seed: int) -> list[list[Option]]:
    generator = np.random.default_rng(seed)
    return [
        [
            Option(num_bytes=int(generator.integers(100, 5000)), noise=float(10 ** generator.uniform(-6, 0)))
            for _ in range(4)
        ]
        for _ in range(5)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_choice_has_the_least_noise_of_all_plans_that_fit(seed: int) -> None:
    options = random_options(seed)
    budget = (smallest_bytes(options) + 12_500) // 2
    fitting = [
        sum(option.noise for option in plan)
        for plan in product(*options)
        if sum(option.num_bytes for option in plan) <= budget
    ]
    found = choose(options, budget)
    assert found.num_bytes <= budget
    assert found.noise == pytest.approx(min(fitting), rel=1e-3)
    assert found.least_noise <= found.noise


def test_only_plan_that_fits_is_found() -> None:
    options = random_options(9)
    smallest = smallest_bytes(options)
    assert choose(options, smallest).num_bytes == smallest


def test_budget_below_the_smallest_plan_is_refused() -> None:
    options = random_options(9)
    with pytest.raises(ValueError, match=f"smallest plan takes {smallest_bytes(options)} bytes"):
        choose(options, smallest_bytes(options) - 1)
