"""What another profile of the same device would have predicted: predictors drawn from a calibration's posterior."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from latency_models.dataset import build_dataset
from latency_models.gaussian import Gaussian
from latency_models.held_out import with_latency
from latency_models.observations import observe
from latency_models.posterior import add_networks, fit_blocks
from latency_models.predictors.block_table import CalibratedPredictor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from latency_models.devices import DeviceSpec
    from nas.core.profile import ProfileSet
    from nas.core.protocols import SearchSpace
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload

    FloatArray = NDArray[np.float64]


def draw_predictors(
    predictor: CalibratedPredictor,
    profiles: ProfileSet,
    workloads: Mapping[str, Workload],
    scenario: Scenario,
    device: DeviceSpec,
    *,
    count: int,
    rng: np.random.Generator,
) -> tuple[CalibratedPredictor, ...]:
    """Return predictors whose latencies differ from ``predictor`` as far as its data leave them open.

    Args:
        predictor: What ``calibrate`` returned for the other arguments; memory is predicted as it does.
        profiles: Records it was calibrated on.
        workloads: Workload of every measured network, by its subject.
        scenario: Scenario of the calibration.
        device: Device of the calibration.
        count: How many to draw.
        rng: Of the draws.
    """
    observations = observe(profiles)
    fitted = predictor.model.fitted(device)
    data = build_dataset(observations, workloads, scenario, fitted, weights=predictor.model.weights)
    posterior = add_networks(fit_blocks(data.effects, data.blocks, data.prior), data.networks)
    mean, covariance = posterior.unknowns.mean, posterior.unknowns.covariance
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    drawn = []
    for _ in range(count):
        unknowns = Gaussian(mean=mean + root @ rng.standard_normal(len(mean)), covariance=covariance)
        model = with_latency(predictor.model, replace(posterior, unknowns=unknowns), observations)
        drawn.append(CalibratedPredictor(model=model))
    return tuple(drawn)


def drawn_latencies_ms(
    drawn: Sequence[CalibratedPredictor], space: SearchSpace, scenario: Scenario, options: NDArray[np.integer]
) -> FloatArray:
    """Return the time of one call of each candidate by each predictor, shape (R, N).

    As in a cost table, times add over slots; here only times are asked for, so that blocks are described once for all
    predictors.

    Args:
        drawn: The predictors.
        space: Space of the candidates.
        scenario: Scenario of the calibration.
        options: Option indices, shape (N, slots).
    """
    counts = [len(space.options(slot)) for slot in space.slots()]
    base = _alone_ms(drawn, space, scenario, [0] * len(counts))
    total = np.repeat(base[:, None], len(options), axis=1)
    for slot, count in enumerate(counts):
        chosen = [[option if other == slot else 0 for other in range(len(counts))] for option in range(count)]
        added = np.array([_alone_ms(drawn, space, scenario, row) if any(row) else base for row in chosen])
        total += (added - base)[options[:, slot]].T
    return total


def _alone_ms(
    drawn: Sequence[CalibratedPredictor], space: SearchSpace, scenario: Scenario, options: list[int]
) -> FloatArray:
    features = drawn[0].features(space.workload(space.from_options(options), scenario))
    return np.array(
        [
            predictor.model.table.overhead_ms + sum(predictor.block_ms(block) for block in features)
            for predictor in drawn
        ]
    )
