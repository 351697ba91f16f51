"""Random streams are functions of seed, name and index."""

from __future__ import annotations

from nas.core.rng import RandomStreams


def test_streams_repeat() -> None:
    assert RandomStreams(7).python("engine", 3).random() == RandomStreams(7).python("engine", 3).random()
    assert RandomStreams(7).numpy("noise").random() == RandomStreams(7).numpy("noise").random()


def test_streams_differ_by_seed_name_and_index() -> None:
    seeds = {RandomStreams(seed).integer(name, index) for seed in (0, 1) for name in ("a", "b") for index in (0, 1)}
    assert len(seeds) == 8
