"""Public optimisers on a search problem, used as their own documentation shows.

They are given what their interface takes: the costs as objectives and the limits as constraints, all reported after a
design was judged; every design they ask for is paid for, inside the limits or not. pymoo's NSGA-II is after
https://pymoo.org/customization/discrete.html and https://pymoo.org/constraints; Optuna's samplers take
``constraints_func``.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

if TYPE_CHECKING:
    from search_recorder import Recorder


def random(recorder: Recorder, seed: int) -> None:
    """Judge uniform draws, whatever they cost; of the listed networks where only some exist."""
    problem = recorder.problem
    generator = np.random.default_rng([seed, 1])
    listed = getattr(problem, "options", None)
    if listed is not None:
        for index in generator.permutation(len(listed)):
            recorder.judge(listed[index])
        return
    while True:
        recorder.judge(generator.integers(problem.sizes))


def optuna_sampler(recorder: Recorder, seed: int, *, sampler: str) -> None:
    """Run ``study.optimize`` with several objectives and constraints."""
    problem = recorder.problem

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        row = tuple(trial.suggest_categorical(f"slot{slot}", range(size)) for slot, size in enumerate(problem.sizes))
        row = problem.nearest(row)
        score = recorder.judge(row)
        options = np.array([row])
        trial.set_user_attr("excess", problem.excess(options)[0].tolist())
        return *problem.objectives(options)[0].tolist(), -score

    kinds: dict[str, Any] = {
        "nsga2": lambda **common: optuna.samplers.NSGAIISampler(**common),
        "tpe": lambda **common: optuna.samplers.TPESampler(multivariate=True, **common),
        "gp": lambda **common: optuna.samplers.GPSampler(**common),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = kinds[sampler](seed=seed, constraints_func=lambda trial: trial.user_attrs["excess"])
        study = optuna.create_study(directions=["minimize"] * (len(problem.corner) + 1), sampler=made)
        study.optimize(objective, n_trials=None, callbacks=[lambda study, _: study.stop() if recorder.done else None])


def pymoo_nsga2(recorder: Recorder, seed: int, *, population: int = 20, reject: bool = False) -> None:
    """Run pymoo's NSGA-II on integers, a column for each slot, uniform crossover and population 20.

    The documented variants were tried on three seeds of an interacting problem: mixed variables, populations of 20, 50
    and 100, simulated binary, two-point and uniform crossover. This one was best at 200 and at 1,000 evaluations.
    With ``reject`` a design over a limit is not judged: constraint domination ranks it by its excess alone.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    problem = recorder.problem
    highest = np.array(problem.sizes) - 1

    class Judged(ElementwiseProblem):  # type: ignore[misc]  # pymoo has no types
        def __init__(self) -> None:
            limits = problem.excess(np.zeros((1, len(highest)), dtype=np.int64)).shape[1]
            objectives = len(problem.corner) + 1
            super().__init__(
                n_var=len(highest), n_obj=objectives, n_ieq_constr=limits, xl=0 * highest, xu=highest, vtype=int
            )

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            row = problem.nearest(tuple(int(option) for option in x))
            options = np.array([row])
            out["G"] = problem.excess(options)[0]
            score = 0.0
            if reject and (out["G"] > 0).any():
                recorder.count()
            else:
                score = recorder.judge(row)
            out["F"] = [*problem.objectives(options)[0], -score]

    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=UX(repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Judged(), algorithm, ("n_gen", 1_000_000), seed=seed, verbose=False)
