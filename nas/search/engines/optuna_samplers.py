"""Any Optuna sampler as an engine: NSGA-II by default.

Every slot is one categorical parameter over its options, so the study's space is exactly the search space. Objectives
are those of ``nas.core.pareto.objectives``, all minimised. A screened candidate is told as complete and infeasible:
latency and memory are real, its constraint is the total relative excess over the budget, and its unknown quality is
the median of the scores told so far. NSGA-II, NSGA-III and TPE never look at that quality (infeasible trials rank by
their constraint); for the GP sampler it is neutral, where the worst score would teach it that dear networks are bad.

Resume. A study lives in memory and is rebuilt by ``tell`` from what a proposal's note keeps of its trial: number,
parameters, system attributes, and the study's system attributes where asking changed them. All of these are needed:
without the trials' system attributes NSGA-II turns silently into random search, and without the study's parent cache
its parents come in another order. The sampler is made anew, with its own seed, for every batch.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from statistics import median
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from nas.core.errors import ConfigError, InputError
from nas.core.evaluation import Proposal
from nas.core.pareto import objectives
from nas.search.screening import total_excess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchSpace
    from nas.core.rng import RandomStreams

SAMPLERS = {
    "gp": "GPSampler",
    "nsga2": "NSGAIISampler",
    "nsga3": "NSGAIIISampler",
    "qmc": "QMCSampler",
    "random": "RandomSampler",
    "tpe": "TPESampler",
}

# With several objectives Optuna's TPE samples each parameter alone and sorts all trials again for each: a draw costs
# as many sorts as there are slots. Multivariate sampling sorts once and sees how slots go together.
_DEFAULTS: dict[str, dict[str, Any]] = {"tpe": {"multivariate": True}}

# A converged population repeats itself. After this many repeats in a row a draw is made uniformly at random instead.
REPEATS_BEFORE_RANDOM = 10
REPEATS_BEFORE_END = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptunaOptions:
    """Settings of the engine.

    Attributes:
        sampler: ``gp``, ``nsga2``, ``nsga3``, ``qmc``, ``random`` or ``tpe``.
        population: Population of the NSGA samplers; Optuna's default when left out.
        settings: Further arguments of the sampler's constructor, by their Optuna names.
    """

    sampler: str = "nsga2"
    population: int | None = None
    settings: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)


class OptunaSearch:
    """Asks an Optuna sampler; tells it costs, qualities and excesses over the budget."""

    Options = OptunaOptions

    def __init__(self, space: SearchSpace, options: OptunaOptions, streams: RandomStreams) -> None:
        """Build the engine.

        Raises:
            ConfigError: The sampler or one of its settings does not exist, or has a value it refuses.
        """
        self._space = space
        self._streams = streams
        self._sampler_class, self._arguments = _sampler(options)
        self._distributions: dict[str, CategoricalDistribution] = {
            slot: CategoricalDistribution(range(len(space.options(slot)))) for slot in space.slots()
        }
        self._batch = 0
        try:
            sampler = self._new_sampler()  # a wrong setting shows here and not in the middle of a search
        except (TypeError, ValueError) as error:
            raise ConfigError(f"search.engine: Optuna's {self._sampler_class.__name__} refuses: {error}") from error
        self._storage = optuna.storages.InMemoryStorage()
        with _quiet():
            self._study = optuna.create_study(storage=self._storage, directions=["minimize"] * 3, sampler=sampler)
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        self._begun = False
        self._excess: dict[int, float] = {}  # trial number to constraint, which the sampler reads when a trial is told
        self._scores: list[float] = []
        self._open: dict[int, str] = {}  # trial number to digest of what this process asked and has not told
        self._seen: set[str] = set()
        self._noted: dict[str, Any] = {}  # the study's system attributes as far as notes hold them

    def ask(self, count: int) -> list[Proposal]:
        """Propose up to ``count`` candidates, never one that was told or proposed before."""
        with _quiet():
            if not self._begun:
                self._begin()
            proposals: list[Proposal] = []
            repeats = 0
            while len(proposals) < count and repeats < REPEATS_BEFORE_END:
                proposal = self._draw(at_random=repeats >= REPEATS_BEFORE_RANDOM)
                repeats = 0 if proposal else repeats + 1
                if proposal:
                    proposals.append(proposal)
        if repeats >= REPEATS_BEFORE_END:
            logger.info("%s proposed nothing new in %d draws", self._sampler_class.__name__, repeats)
        return proposals

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Complete the trials of this process, and add those of an earlier one."""
        with _quiet():
            for evaluation in evaluations:
                self._tell(evaluation)
        self._batch += 1
        self._begun = False

    def _begin(self) -> None:
        """Start a batch: a sampler of its own, and at the very first the smallest architecture."""
        self._begun = True
        self._study.sampler = self._new_sampler()
        self._random = self._streams.python("optuna_repeats", self._batch)
        if self._batch == 0:
            self._study.enqueue_trial(dict.fromkeys(self._distributions, 0))

    def _draw(self, *, at_random: bool) -> Proposal | None:
        """Ask for one trial; a repeat is told as failed, which samplers ignore, and gives ``None``."""
        if at_random:
            sizes = {slot: len(distribution.choices) for slot, distribution in self._distributions.items()}
            self._study.enqueue_trial({slot: self._random.randrange(size) for slot, size in sizes.items()})
        trial = self._study.ask(dict(self._distributions))
        options = [trial.params[slot] for slot in self._distributions]
        architecture = self._space.from_options(options)
        if architecture.digest in self._seen:
            self._study.tell(trial.number, state=TrialState.FAIL)
            return None
        self._seen.add(architecture.digest)
        self._open[trial.number] = architecture.digest
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
        note = {"trial": trial.number, "system": dict(self._storage.get_trial_system_attrs(trial_id))}
        study = self._storage.get_study_system_attrs(self._study_id)
        changed = {key: value for key, value in study.items() if self._noted.get(key) != value}
        if changed:
            note["study"] = changed
            self._noted.update(changed)
        return Proposal(architecture=architecture, note=note)

    def _tell(self, evaluation: Evaluation) -> None:
        number = _trial_number(evaluation)
        values, self._excess[number] = self._values(evaluation), total_excess(evaluation.violations)
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        if self._open.pop(number, None) is not None:
            self._study.tell(number, values, state=state)
            return
        self._seen.add(evaluation.architecture.digest)
        while len(self._storage.get_all_trials(self._study_id, deepcopy=False)) < number:
            self._study.add_trial(create_trial(state=TrialState.FAIL))  # a repeat, which the journal does not hold
        note = evaluation.proposal.note
        options = self._space.to_options(evaluation.architecture)
        self._study.add_trial(
            create_trial(
                state=state,
                params=dict(zip(self._distributions, options, strict=True)),
                distributions=dict(self._distributions),
                values=values,
                system_attrs={**note["system"], _CONSTRAINTS_KEY: (self._excess[number],)},
            )
        )
        for key, value in note.get("study", {}).items():
            self._storage.set_study_system_attr(self._study_id, key, value)
            self._noted[key] = value

    def _values(self, evaluation: Evaluation) -> tuple[float, ...] | None:
        if evaluation.state == "failed":
            return None
        if evaluation.quality is None:
            score = median(self._scores) if self._scores else 0.0
            return evaluation.cost.objective_ms, evaluation.cost.peak_memory_mb, -score
        self._scores.append(evaluation.quality.score)
        return objectives(evaluation)

    def _new_sampler(self) -> optuna.samplers.BaseSampler:
        # The Sobol sequence must go on over batches, so its scrambling keeps one seed.
        number = 0 if self._sampler_class is optuna.samplers.QMCSampler else self._batch
        arguments = {**self._arguments, "seed": self._streams.integer("optuna", number) % 2**32}
        if "constraints_func" in _parameters(self._sampler_class):
            arguments["constraints_func"] = lambda trial: (self._excess[trial.number],)
        with _quiet():
            sampler: optuna.samplers.BaseSampler = self._sampler_class(**arguments)
        return sampler


# Where Optuna keeps what a constraints_func returned: optuna.study._constrained_optimization, the same from 4.5 to 5.0.
_CONSTRAINTS_KEY = "constraints"


def _sampler(options: OptunaOptions) -> tuple[Any, dict[str, Any]]:
    """Return the sampler's class and its constructor's arguments, but for seed and constraints."""
    if options.sampler not in SAMPLERS:
        close = get_close_matches(options.sampler, SAMPLERS, n=1)
        raise ConfigError(
            f"search.engine.sampler: Optuna sampler {options.sampler!r} is unknown or cannot search several "
            f"objectives over categories; allowed: {', '.join(sorted(SAMPLERS))}",
            hint=f"did you mean {close[0]!r}?" if close else None,
        )
    kind = getattr(optuna.samplers, SAMPLERS[options.sampler])
    arguments = {**_DEFAULTS.get(options.sampler, {}), **options.settings}
    if options.population is not None:
        arguments["population_size"] = options.population
    allowed = sorted(_parameters(kind) - {"seed", "constraints_func"})
    wrong = sorted(set(arguments) - set(allowed))
    if wrong:
        raise ConfigError(
            f"search.engine: Optuna's {kind.__name__} has no argument {', '.join(map(repr, wrong))}; "
            f"allowed: {', '.join(allowed)}"
        )
    return kind, arguments


def _parameters(kind: Any) -> set[str]:
    return set(inspect.signature(kind).parameters)


def _trial_number(evaluation: Evaluation) -> int:
    number = evaluation.proposal.note.get("trial")
    if not isinstance(number, int) or "system" not in evaluation.proposal.note:
        raise InputError(
            f"evaluation {evaluation.number} of the journal was not proposed by an Optuna sampler",
            hint="go on with the engine that began the search, or start a new run directory",
        )
    return number


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's remarks on its own interface (experimental samplers, deprecated arguments)."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
