"""BoTorch's qLogNEHVI on categorical slots, after its documentation.

A ``MixedSingleTaskGP`` (Hamming kernel, one length scale a slot) models quality; local search on the lattice
(``optimize_acqf_discrete_local_search``), or the best of a list, optimises the acquisition. Two versions: costs known,
as a ``GenericDeterministicModel``, with everything over a limit left out of start and optimisation; costs and limits
learned by GPs of their own.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import MixedSingleTaskGP
from botorch.models.deterministic import GenericDeterministicModel
from botorch.models.model import ModelList
from botorch.optim.optimize import optimize_acqf_discrete, optimize_acqf_discrete_local_search
from botorch.sampling.index_sampler import IndexSampler
from botorch.sampling.list_sampler import ListSampler
from botorch.sampling.normal import SobolQMCNormalSampler
from gpytorch.mlls import ExactMarginalLogLikelihood

from nas.core.pareto import non_dominated

if TYPE_CHECKING:
    from search_problems import Problem
    from search_recorder import Recorder

START = 24
BATCH = 5
SAMPLES = 64
CANDIDATES = 512
LISTED_CANDIDATES = 1500
RESTARTS = 3


def run(recorder: Recorder, seed: int, *, costs_known: bool) -> None:
    """Search until the recorder stops it; goes on from what the recorder has."""
    problem = recorder.problem
    torch.set_num_threads(1)
    torch.manual_seed(seed + 1000 * len(recorder.rows))
    generator = np.random.default_rng([seed, len(recorder.rows)])
    warnings.simplefilter("ignore")
    while len(recorder.rows) < START:
        recorder.judge(random_rows(problem, 1, generator, feasible=costs_known)[0])
    while True:
        acquisition = _acquisition(problem, recorder, costs_known=costs_known)
        observed = torch.tensor(recorder.rows, dtype=torch.double)
        picked = torch.empty(0, len(problem.sizes), dtype=torch.double)
        for _ in range(BATCH):
            avoid = torch.cat([observed, picked])
            listed = getattr(problem, "options", None)
            best = _local_search if listed is None else _best_listed
            picked = torch.cat([picked, best(acquisition, recorder, generator, avoid, feasible=costs_known)])
            acquisition.set_X_pending(picked)
        for row in picked.long().tolist():
            recorder.judge(row)


def _best_listed(
    acquisition: AcquisitionFunction,
    recorder: Recorder,
    generator: np.random.Generator,
    avoid: torch.Tensor,
    *,
    feasible: bool,
) -> torch.Tensor:
    """Return the best of many listed architectures (1, L): random ones and neighbours of the front so far."""
    choices = _starts(recorder.problem, recorder, generator, count=LISTED_CANDIDATES, feasible=feasible)
    best, _ = optimize_acqf_discrete(acq_function=acquisition, q=1, choices=choices, X_avoid=avoid)
    return best


def _local_search(
    acquisition: AcquisitionFunction,
    recorder: Recorder,
    generator: np.random.Generator,
    avoid: torch.Tensor,
    *,
    feasible: bool,
) -> torch.Tensor:
    """Return the best architecture that local search finds from the best of many starts (1, L)."""
    problem = recorder.problem
    target = _OnlyFeasible(acquisition, problem) if feasible else acquisition
    starts = _starts(problem, recorder, generator, count=CANDIDATES, feasible=feasible)
    starts = starts[~(starts[:, None] == avoid).all(-1).any(-1)]
    with torch.no_grad():
        values = target(starts[:, None])
    best, _ = optimize_acqf_discrete_local_search(
        acq_function=target,
        discrete_choices=[torch.arange(size, dtype=torch.double) for size in problem.sizes],
        q=1,
        num_restarts=RESTARTS,
        X_avoid=avoid,
        batch_initial_conditions=starts[values.topk(RESTARTS).indices][:, None],
        return_acq_values=False,
    )
    return best


class _OnlyFeasible(AcquisitionFunction):
    """The acquisition where the known costs keep the limits, minus infinity elsewhere."""

    def __init__(self, inner: AcquisitionFunction, problem: Problem) -> None:
        super().__init__(model=inner.model)
        self._inner = inner
        self._problem = problem

    def forward(self, candidates: torch.Tensor) -> torch.Tensor:
        """Return the values (b,) of candidates (b, 1, L)."""
        inside = torch.from_numpy((self._problem.excess(candidates[:, 0].long().numpy()) <= 0).all(axis=1))
        values = torch.full((len(candidates),), -torch.inf, dtype=torch.double)
        if inside.any():
            values[inside] = self._inner(candidates[inside]).detach()
        return values


def _acquisition(problem: Problem, recorder: Recorder, *, costs_known: bool) -> qLogNoisyExpectedHypervolumeImprovement:
    """Fit the models; outcomes are negated known objectives, then quality, each by its spread in random ones."""
    observed = torch.tensor(recorder.rows, dtype=torch.double)
    random = random_rows(problem, 500, np.random.default_rng(0), feasible=False)
    scale = torch.from_numpy(problem.objectives(random).std(axis=0))
    quality = _fitted(observed, torch.tensor(recorder.scores, dtype=torch.double)[:, None])
    shape = torch.Size([SAMPLES])
    constraints = None
    if costs_known:
        known = GenericDeterministicModel(
            lambda x: (
                -torch.from_numpy(problem.objectives(x.reshape(-1, x.shape[-1]).long().numpy())).reshape(
                    *x.shape[:-1], -1
                )
                / scale
            ),
            num_outputs=len(scale),
        )
        costs = [known]
        samplers = [IndexSampler(shape, seed=0)]
    else:
        figures = -torch.from_numpy(problem.objectives(observed.long().numpy())) / scale
        costs = [_fitted(observed, column[:, None]) for column in figures.T]
        samplers = [SobolQMCNormalSampler(shape, seed=index + 1) for index in range(len(costs))]
        limits = torch.tensor(problem.corner, dtype=torch.double) / scale
        constraints = [
            lambda outcomes, index=index: -outcomes[..., index] - limits[index] for index in range(len(limits))
        ]
    reference = [-value / float(by) for value, by in zip(problem.corner, scale, strict=True)]
    return qLogNoisyExpectedHypervolumeImprovement(
        model=ModelList(*costs, quality),
        ref_point=[*reference, problem.quality_corner],
        X_baseline=observed,
        sampler=ListSampler(*samplers, SobolQMCNormalSampler(shape, seed=0)),
        constraints=constraints,
        prune_baseline=True,
        cache_root=False,
    )


def _fitted(observed: torch.Tensor, values: torch.Tensor) -> MixedSingleTaskGP:
    model = MixedSingleTaskGP(observed, values, cat_dims=list(range(observed.shape[1])))
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def _starts(
    problem: Problem, recorder: Recorder, generator: np.random.Generator, *, count: int, feasible: bool
) -> torch.Tensor:
    """Return different random designs and one-change neighbours of what is on the front so far."""
    rows = random_rows(problem, count, generator, feasible=feasible)
    options = np.array(recorder.rows)
    inside = (problem.excess(options) <= 0).all(axis=1)
    if inside.any():
        points = np.column_stack([problem.objectives(options), -np.array(recorder.scores)])[inside]
        best = options[inside][non_dominated(points.tolist())]
        near = best[generator.integers(len(best), size=4 * count)].copy()
        slots = generator.integers(len(problem.sizes), size=len(near))
        near[np.arange(len(near)), slots] = generator.integers(np.array(problem.sizes)[slots])
        if feasible:
            near = near[(problem.excess(near) <= 0).all(axis=1)]
        rows = np.concatenate([rows, near[:count]])
    return torch.from_numpy(np.unique(rows, axis=0)).double()


def random_rows(problem: Problem, count: int, generator: np.random.Generator, *, feasible: bool) -> np.ndarray:
    """Return uniform designs, of the listed or the feasible ones if there is a list or that is wished."""
    listed = getattr(problem, "options", None)
    if listed is not None:
        return listed[generator.choice(len(listed), size=count, replace=False)]
    if not feasible:
        return generator.integers(problem.sizes, size=(count, len(problem.sizes)))
    found: list[np.ndarray] = []
    for _ in range(1000):
        rows = generator.integers(problem.sizes, size=(100 * count, len(problem.sizes)))
        found.extend(rows[(problem.excess(rows) <= 0).all(axis=1)])
        if len(found) >= count:
            break
    return np.array(found[:count])
