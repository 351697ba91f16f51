"""Every engine that a YAML can name is built from its section and proposes candidates of the space."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from nas.config.run import load_run
from nas.config.search import Engine, OptunaEngine
from nas.core.rng import RandomStreams
from nas.pipeline.costs import additive_costs, latency_range_ms, load_cost_table
from nas.search import engines
from tests.pipeline.test_stages import context  # noqa: F401  # a fixture

if TYPE_CHECKING:
    from pathlib import Path

    from nas.pipeline.context import Context

SAMPLERS = get_args(OptunaEngine.model_fields["sampler"].annotation)
TYPES = [get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(Engine)]


def test_a_yaml_names_every_engine_there_is() -> None:
    assert sorted(TYPES) == sorted(engines.names())


@pytest.mark.parametrize("engine", [f"type={name}" for name in TYPES] + [f"sampler={name}" for name in SAMPLERS])
def test_engines_are_built_from_their_section(context: Context, tmp_path: Path, engine: str) -> None:  # noqa: F811
    key, name = engine.split("=")
    chosen = {"type": name} if key == "type" else {"type": "optuna", "sampler": name}
    limit = ("search.engine.limit=10000000",) if name == "exhaustive" else ()
    sets = tuple(f"search.engine.{field}={value}" for field, value in chosen.items())
    plain = tmp_path / "plain.yaml"
    plain.write_text((tmp_path / "run.yaml").read_text().replace("{type: optuna, sampler: nsga2, population: 4}", "{}"))
    section = load_run(plain, (*sets, *limit)).search
    assert section is not None
    table = load_cost_table(context)
    built = engines.build(
        section.engine.type,
        context.space,
        section.engine.model_dump(exclude={"type"}, exclude_none=True),
        RandomStreams(0),
        costs=additive_costs(table),
        budget=context.config.budget.build(*latency_range_ms(table, context.space)),
    )
    proposals = built.ask(2)
    assert proposals
    for proposal in proposals:
        context.space.validate(proposal.architecture)


def test_engines_solve_on_the_very_costs_that_candidates_are_priced_with(context: Context) -> None:  # noqa: F811
    table = load_cost_table(context)
    rng = context.streams.numpy("test")
    options = np.stack([rng.integers(0, count, 500) for count in table.num_options], axis=1)
    ours, theirs = additive_costs(table).score(options), table.score(options)
    for name in ("latency_ms", "latency_high_ms", "peak_memory_mb", "memory_high_mb", "parameters"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-12)
