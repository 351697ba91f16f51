"""Which engine runs on which problem, for how long and how often; finished runs are kept in a file and not repeated.

Runs of one engine on one group of problems share a process, so that peak memory is that engine's. A run is found again
by problem, engine, seed, evaluations and version: of our engines a digest of the search's source files, of peers their
package's version.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import search_ours
import search_peers
from search_problems import KINDS, fingerprint, make_synthetic
from search_recorder import Finished, Recorder

from nas.core.provenance import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from search_problems import Problem

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"optuna": "optuna_samplers", "random": "random_search"}
BATCHES = {"interacting": 10, "synthetic": 10, "tiny": 4}
TRAININGS = "tiny, short trainings"
INTERACTING = ("interacting, related", "interacting, unrelated")


@dataclass(frozen=True, kw_only=True)
class Length:
    """How many evaluations a run pays for, and how many seeds there are."""

    evaluations: int
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One row of the tables.

    Attributes:
        package: What a peer needs; None for what runs in our loop.
        lengths: By group of problems; the engine does not run on others.
        run: Called with the recorder, the seed and the group.
        resumes: Whether a killed run goes on from its progress file.
    """

    run: Callable[[Recorder, int, str], dict[str, Any] | None]
    lengths: dict[str, Length]
    package: str | None = None
    resumes: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run."""

    problem: str
    engine: str
    seed: int
    evaluations: int
    data: Path | None = field(default=None, compare=False)

    @property
    def slug(self) -> str:
        """A file name."""
        return re.sub(r"[^A-Za-z0-9]+", "_", f"{self.problem} {self.engine} {self.seed} {self.evaluations}")


def group_of(problem: str) -> str:
    """Return the group whose lengths a problem has."""
    if problem in KINDS:
        return "interacting" if problem in INTERACTING else "synthetic"
    if problem == TRAININGS:
        return "tiny"
    return problem.partition("/")[0]


def _ours(name: str, *, residual_known: bool = True, **options: Any) -> Callable[[Recorder, int, str], Any]:
    def run(recorder: Recorder, seed: int, group: str) -> dict[str, Any]:
        batch = BATCHES.get(group, 5)
        return search_ours.run(recorder, seed, name=name, options=options, batch=batch, residual_known=residual_known)

    run.__name__ = name
    return run


def _peer(function: Callable[..., None], **options: Any) -> Callable[[Recorder, int, str], None]:
    return lambda recorder, seed, _: function(recorder, seed, **options)


def _botorch(*, costs_known: bool) -> Callable[[Recorder, int, str], None]:
    def run(recorder: Recorder, seed: int, _: str) -> None:
        import search_botorch

        search_botorch.run(recorder, seed, costs_known=costs_known)

    return run


def _lengths(
    interacting: tuple[int, int] = (0, 0),
    synthetic: tuple[int, int] = (0, 0),
    nb201: tuple[int, int] = (0, 0),
    anb: tuple[int, int] = (0, 0),
    tiny: tuple[int, int] = (0, 0),
) -> dict[str, Length]:
    """Return the groups that have evaluations, each given as (evaluations, seeds)."""
    groups = {"interacting": interacting, "synthetic": synthetic, "nb201": nb201, "anb": anb, "tiny": tiny}
    return {name: Length(evaluations=many, seeds=seeds) for name, (many, seeds) in groups.items() if many}


_FAST = _lengths((1000, 5), (200, 5), (150, 3), (150, 3))
_TRAININGS = _lengths(tiny=(24, 2))
_SCREENED = _lengths((1000, 5), (200, 5), (150, 3)) | _TRAININGS
ENGINES = {
    "model_based": Engine(run=_ours("model_based"), lengths=_FAST | _TRAININGS),
    "model_based, latency residual unknown": Engine(
        run=_ours("model_based", residual_known=False), lengths=_lengths((200, 3))
    ),
    "model_based without pairs": Engine(run=_ours("model_based", pairs=False), lengths=_lengths((200, 3))),
    "evolving (greedy actions)": Engine(run=_ours("evolving"), lengths=_lengths((1000, 5), (200, 5))),
    "regularised evolution": Engine(run=_ours("regularised"), lengths=_lengths((1000, 5), (200, 5))),
    "Optuna NSGA-II, infeasible rejected first": Engine(run=_ours("optuna", sampler="nsga2"), lengths=_SCREENED),
    "Optuna TPE, infeasible rejected first": Engine(run=_ours("optuna", sampler="tpe"), lengths=_lengths((200, 2))),
    "random, infeasible rejected first": Engine(run=_ours("random"), lengths=_SCREENED),
    "exhaustive, in order": Engine(run=_ours("exhaustive"), lengths=_lengths(nb201=(150, 1))),
    "random": Engine(run=_peer(search_peers.random), lengths=_FAST, package="numpy"),
    "pymoo NSGA-II": Engine(run=_peer(search_peers.pymoo_nsga2), lengths=_FAST, package="pymoo"),
    "pymoo NSGA-II, infeasible rejected first": Engine(
        run=_peer(search_peers.pymoo_nsga2, reject=True), lengths=_lengths((1000, 5), (200, 5)), package="pymoo"
    ),
    "Optuna NSGA-II": Engine(run=_peer(search_peers.optuna_sampler, sampler="nsga2"), lengths=_FAST, package="optuna"),
    "Optuna TPE": Engine(
        run=_peer(search_peers.optuna_sampler, sampler="tpe"),
        lengths=_lengths((200, 3), (200, 1), (150, 1), (150, 1)),
        package="optuna",
    ),
    "Optuna GPSampler": Engine(
        run=_peer(search_peers.optuna_sampler, sampler="gp"),
        lengths=_lengths((200, 1), nb201=(150, 1), anb=(150, 1)),
        package="optuna",
    ),
    "BoTorch qLogNEHVI, costs known": Engine(
        run=_botorch(costs_known=True),
        lengths=_lengths((200, 2), nb201=(150, 1), anb=(150, 1)),
        package="botorch",
        resumes=True,
    ),
    "BoTorch qLogNEHVI, costs learned": Engine(
        run=_botorch(costs_known=False), lengths=_lengths((200, 1)), package="botorch", resumes=True
    ),
}


def build_problem(task: Task, cache_folder: Path) -> Problem:
    """Return the problem of a task."""
    if task.problem in KINDS:
        return make_synthetic(task.problem, task.seed)
    if task.problem == TRAININGS:
        from search_trainings import TrainedProblem

        return TrainedProblem(name=task.problem, seed=task.seed, folder=cache_folder / "trainings")
    from search_measured import make_measured

    assert task.data is not None  # tasks of measured problems are made from a folder
    return make_measured(task.problem, task.seed, task.data)


def problem_names(data: Path | None, *, trainings: bool) -> list[str]:
    """Return the problems there are; those from tables when there is a folder, with trainings when asked for."""
    names = [*KINDS, *([TRAININGS] if trainings else [])]
    if data is not None:
        from search_measured import devices

        names += [f"{benchmark}/{device}" for benchmark in ("nb201", "anb") for device in devices(benchmark, data)]
    return names


def tasks(
    problems: Sequence[str], engines: Sequence[str], *, seeds: int, evaluations: int, data: Path | None
) -> list[Task]:
    """Return the runs of these problems and engines, first seeds first."""
    found = []
    for problem in problems:
        for name in engines:
            length = ENGINES[name].lengths.get(group_of(problem))
            if length is None or missing(name):
                continue
            many = min(length.evaluations, evaluations)
            found += [
                Task(problem=problem, engine=name, seed=seed, evaluations=many, data=data)
                for seed in range(min(length.seeds, seeds))
            ]
    return sorted(found, key=lambda task: task.seed)


def missing(engine: str) -> str | None:
    """Return the package that a peer lacks here, if any."""
    package = ENGINES[engine].package
    if package is None:
        return None
    try:
        version(package)
    except PackageNotFoundError:
        return package
    return None


@cache
def engine_version(engine: str) -> str:
    """Return what decides whether an earlier run still counts."""
    package = ENGINES[engine].package
    if package is not None:
        return f"{package} {version(package)}"
    digest = hashlib.sha256()
    for path in sorted(_sources(f"nas.search.engines.{MODULES.get(name := ENGINES[engine].run.__name__, name)}")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _sources(module: str) -> set[Path]:
    """Return the file of a module of ``nas.search`` and those of all such modules that it imports."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        parts = waiting.pop().split(".")
        files = ROOT.joinpath(*parts).with_suffix(".py"), ROOT.joinpath(*parts, "__init__.py")
        path = next(filter(Path.exists, files), None)
        if path is None or path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nas.search"):
                names = [f"{node.module}.{name.name}" for name in node.names]
                waiting += names if node.module == "nas.search" else [str(node.module), *names]
    return found


def execute(task: Task, cache_folder: Path) -> dict[str, Any]:
    """Run one task in this process and return its record."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    engine = ENGINES[task.engine]
    problem = build_problem(task, cache_folder)
    progress = cache_folder / "progress" / f"{task.slug}.jsonl"
    recorder = Recorder(problem, task.evaluations, progress, resume=engine.resumes)
    try:
        more = engine.run(recorder, task.seed, group_of(task.problem)) or {}
    except Finished:
        more = {}
    return {
        "problem": task.problem,
        "engine": task.engine,
        "seed": task.seed,
        "evaluations": task.evaluations,
        "version": engine_version(task.engine),
        "fingerprint": fingerprint(problem),
        "rows": recorder.rows,
        "cpu_s": recorder.cpu_s,
        "peak_memory_mb": peak_memory_mb(),
        "finished_at": timestamp(),
        **more,
    }


def peak_memory_mb() -> float | None:
    """Return the largest resident set of this process so far; None where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status.read_text().splitlines() if "VmHWM" in line)


def run_all(todo: Iterable[Task], cache_folder: Path, *, workers: int) -> None:
    """Run what the cache does not hold; every finished run is appended to it at once.

    Runs of one engine on one group of problems share a process, which so far only they have used.
    """
    known = {key_of(record) for record in load(cache_folder)}
    shared: dict[tuple[str, str], list[Task]] = {}
    for task in todo:
        if _key(task) not in known:
            shared.setdefault((task.engine, group_of(task.problem)), []).append(task)
    print(f"{sum(map(len, shared.values()))} runs to do", flush=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {pool.submit(_execute_some, some, cache_folder): name for name, some in shared.items()}
        for future in as_completed(futures):
            error = future.exception()
            if error is not None:
                print(f"{futures[future]}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _execute_some(some: Sequence[Task], cache_folder: Path) -> None:
    """Run tasks one after the other; one that fails is reported and does not stop the others."""
    for task in some:
        try:
            record = execute(task, cache_folder)
        except Exception:  # noqa: BLE001  # a fault of one peer must not cost the runs of others
            traceback.print_exc()
            continue
        with (cache_folder / "runs.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{record['finished_at']} {task.slug}: {record['cpu_s'][-1]:.1f} s", flush=True)


def load(cache_folder: Path) -> list[dict[str, Any]]:
    """Return every finished run, oldest first; a last line cut off by a kill is left out."""
    path = cache_folder / "runs.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: a line that is cut off is left out", file=sys.stderr)
    return records


def unfinished(task: Task, cache_folder: Path) -> list[list[Any]]:
    """Return the evaluations of a run that was killed: row, score, processor seconds."""
    path = cache_folder / "progress" / f"{task.slug}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a run is found by."""
    return tuple(record[name] for name in ("problem", "engine", "seed", "evaluations", "version"))


def _key(task: Task) -> tuple[Any, ...]:
    return task.problem, task.engine, task.seed, task.evaluations, engine_version(task.engine)
