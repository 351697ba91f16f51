from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import problem
import pytest
import ray_search
import test_halving

from nas.core.cost import Budget
from nas.core.errors import TrainingError, UnavailableError
from nas.core.evaluation import Proposal, WorkerFailure
from nas.core.resources import Resources
from nas.runs.journal import Journal
from nas.search import search
from nas.search.executors import ray_cluster
from nas.search.executors.ray_cluster import RayExecutor
from nas.search.executors.serial import SerialExecutor
from nas.search.judging import QualityLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.evaluation import Evaluation, Quality
    from nas.core.protocols import Executor


# Ray takes about 15 s to call a node dead that does not answer.
NOTICE_A_LOST_NODE_SOON = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def square(number: int) -> int:
    return number * number


def results_of(executor: Executor, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """The results in the order of the items."""
    for key, item in enumerate(items):
        executor.submit(key, function, item)
    results: dict[Any, Any] = {}
    while len(results) < len(items):
        finished = executor.wait()
        assert finished
        assert not results.keys() & {key for key, _ in finished}
        results |= dict(finished)
    return [results[key] for key in range(len(items))]


def test_serial_executor_runs_dear_items_one_for_each_wait_in_order() -> None:
    called = []
    executor = SerialExecutor(together_s=0.0)
    for item in (3, 1, 2):
        executor.submit(f"item {item}", lambda item: called.append(item) or item * item, item)
    assert executor.room() == -2
    assert executor.wait() == [("item 3", 9)]
    assert called == [3]
    assert [executor.wait(), executor.wait()] == [[("item 1", 1)], [("item 2", 4)]]
    assert executor.room() == 1


def test_serial_executor_runs_cheap_items_together_and_loses_none_before_a_bug() -> None:
    executor = SerialExecutor(together_s=1e9)
    for divisor in (4, 2, 0, 1):
        executor.submit(divisor, lambda item: 8 // item, divisor)
    assert executor.wait() == [(4, 2), (2, 4)]
    with pytest.raises(ZeroDivisionError):
        executor.wait()
    assert executor.wait() == [(1, 8)]


def test_waiting_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was submitted"):
        SerialExecutor().wait()


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"retries": -1}, {"items_per_task": 0}])
def test_ray_options_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"executor.{next(iter(wrong))} must be at least"):
        RayExecutor(**wrong)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_address_where_nothing_listens_is_named_at_once(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=f"no Ray cluster at '{address}': .*refused"):
            RayExecutor(address=address).__enter__()


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[RayExecutor]:
    import ray

    for module in (problem, ray_search, test_halving, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)  # the workers cannot import a module of the tests
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)  # the GPU is a fake
    with RayExecutor(retries=2) as executor:
        yield executor
    ray.shutdown()


GIVE_UP_OFTEN = """
import sys
from random import Random
from time import sleep

from nas.search import search
from nas.search.executors import ray_cluster
from nas.search.executors.ray_cluster import RayExecutor

random = Random(0)
with RayExecutor(address=sys.argv[1]):
    for _ in range(100):
        executor = RayExecutor()
        for number in range(4):
            executor.submit(number, sleep, random.uniform(0.0, 0.004))
        executor.wait()
        del executor
print("alive")
"""


@pytest.mark.slow
def test_giving_up_unfinished_items_leaves_the_process_alive(ray_executor: RayExecutor) -> None:
    import ray

    assert ray_executor is not None
    arguments = [sys.executable, "-c", GIVE_UP_OFTEN, ray.get_runtime_context().gcs_address]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith("alive\n")


@pytest.mark.slow
def test_ray_gives_results_in_item_order(ray_executor: RayExecutor) -> None:
    assert results_of(ray_executor, square, range(10)) == [number * number for number in range(10)]


@pytest.mark.slow
def test_ray_chunks_keep_order(ray_executor: RayExecutor) -> None:
    assert ray_executor is not None  # Ray runs; another executor joins it
    with RayExecutor(items_per_task=4) as chunked:
        assert results_of(chunked, square, range(10)) == [number * number for number in range(10)]
    assert results_of(ray_executor, square, [5]) == [25]  # leaving the second one did not stop the first one's Ray


@pytest.mark.slow
def test_function_too_large_to_send_with_each_task_reaches_the_workers(ray_executor: RayExecutor) -> None:
    weights = bytes(range(256)) * 4096
    assert results_of(ray_executor, lambda index: weights[index], [0, 255, 256, -1]) == [0, 255, 0, 255]


@pytest.mark.slow
def test_worker_killed_on_first_try_loses_nothing(ray_executor: RayExecutor, tmp_path: Path) -> None:
    def die_once(number: int) -> int:
        mark = tmp_path / str(number)
        if number % 2 and not mark.exists():
            mark.write_text("tried")
            os._exit(1)
        return number * number

    assert results_of(ray_executor, die_once, [0, 1, 2, 3]) == [0, 1, 4, 9]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]


@pytest.mark.slow
def test_worker_that_always_dies_is_a_failure_and_the_rest_goes_on(ray_executor: RayExecutor) -> None:
    def die_on_one(number: int) -> int:
        if number == 1:
            os._exit(1)
        return number * number

    results = results_of(ray_executor, die_on_one, [0, 1, 2])
    assert results[0] == 0
    assert results[2] == 4
    assert isinstance(results[1], WorkerFailure)
    assert "each of 3 tries" in results[1].message


@pytest.mark.slow
def test_exception_of_the_function_keeps_its_type(ray_executor: RayExecutor) -> None:
    def fail(number: int) -> int:
        raise TrainingError(f"loss of {number} is not a number")

    with pytest.raises(TrainingError, match="loss of 7 is not a number"):
        results_of(ray_executor, fail, [7])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Resources(gpus=2), "1 processors and 2 GPUs"),
        (Resources(cpus=2.5), "2.5 processors"),
        (Resources(memory_mb=1e9), r"1 processors and 1e\+09 MB"),
    ],
)
def test_task_that_no_node_can_ever_run_is_refused_before_the_search(
    ray_executor: RayExecutor, request_: Resources, words: str
) -> None:
    with pytest.raises(UnavailableError, match=rf"reserves {words}, and no node .* has 2 processors, 1 GPUs and"):
        ray_executor.prepare([Resources(), request_])
    with pytest.raises(UnavailableError, match="no node of the cluster has that much"):
        RayExecutor(resources=request_).prepare(())
    RayExecutor(resources=request_, grows=True).prepare(())


@pytest.mark.slow
def test_tasks_of_both_kinds_run_side_by_side(ray_executor: RayExecutor, tmp_path: Path) -> None:
    def train(number: int) -> bool:
        """Go on until a cheap one was scored beside it."""
        return number == 0 or any(time.sleep(0.01) or (tmp_path / "scored").exists() for _ in range(6000))

    def score(number: int) -> int:
        (tmp_path / "scored").write_text("")
        return number

    for number in range(3):
        ray_executor.submit(("training", number), train, number, Resources(gpus=1))
    assert ray_executor.room(Resources(gpus=1)) == -2
    assert ray_executor.wait() == [(("training", 0), True)]
    ray_executor.submit(("score", 0), score, 7)
    results: dict[Any, Any] = {}
    while len(results) < 3:
        results |= dict(ray_executor.wait())
    assert results == {("training", 1): True, ("training", 2): True, ("score", 0): 7}


@pytest.mark.slow
def test_search_does_not_wait_for_ever_for_a_lost_node(
    ray_executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ray_executor is not None
    executor = RayExecutor()
    executor.prepare(())
    executor.submit("training", time.sleep, 3.0, Resources(gpus=1))
    monkeypatch.setattr(ray_cluster, "LOOK_AT_NODES_S", 0.2)
    monkeypatch.setattr(ray_cluster, "GIVE_UP_S", 0.4)
    monkeypatch.setattr(executor, "_node_resources", lambda: [{"CPU": 2.0}])
    with pytest.raises(UnavailableError, match=r"lost every node that can run a task which reserves .* 1 GPUs"):
        executor.wait()


@dataclass(frozen=True)
class Where:
    """Scores as the problem does and says how many GPUs it saw."""

    task: problem.AdditiveProblem
    name: str

    @property
    def fidelity(self) -> str:
        return "GPUs"

    def estimate(self, architecture: Architecture) -> Quality:
        import ray

        quality = self.task.estimate(architecture)
        return replace(quality, metrics=(("gpus", float(len(ray.get_gpu_ids()))),))


class BothLevels:
    """Proposes every candidate at the lower level and at the highest."""

    def __init__(self, space: problem.FlatSpace) -> None:
        self.script = [Proposal(architecture=one, level=level) for one in space.all() for level in (0, None)]

    def ask(self, count: int) -> list[Proposal]:
        taken, self.script = self.script[:count], self.script[count:]
        return taken

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn nothing."""


@pytest.mark.slow
def test_levels_of_one_search_reserve_what_each_needs(ray_executor: RayExecutor) -> None:
    task = problem.AdditiveProblem(problem.FlatSpace(2, 3))
    result = search(
        task.space,
        BothLevels(task.space),
        cost_model=task.prices,
        quality_estimator=[
            QualityLevel(estimator=Where(task, "score"), price=0.25, resources=Resources(cpus=0.5)),
            QualityLevel(estimator=Where(task, "training"), resources=Resources(gpus=1)),
        ],
        budget=Budget(),
        journal=problem.MemoryJournal(),
        evaluations=100,
        executor=ray_executor,
        mode="asynchronous",
    )
    seen = {(one.proposal.level, dict(one.quality.metrics)["gpus"]) for one in result.evaluations if one.quality}
    assert seen == {(0, 0.0), (None, 1.0)}
    assert (result.complete, result.judged_below) == (9, 9)


@pytest.mark.slow
def test_asynchronous_search_on_ray_pays_for_every_evaluation_once(ray_executor: RayExecutor) -> None:
    evaluations = ray_search.search_with(
        ray_executor, problem.MemoryJournal(), problem.AdditiveProblem(), mode="asynchronous"
    )
    judged = [one.architecture.digest for one in evaluations if one.state == "complete"]
    assert len(judged) == len(set(judged)) == 24


@pytest.fixture(scope="module")
def whole() -> list[Evaluation]:
    """What a search in this process finds when nothing is killed."""
    return ray_search.search_with(SerialExecutor(), problem.MemoryJournal(), problem.AdditiveProblem())


def in_batches(evaluations: list[Evaluation], *numbers: int) -> list[Evaluation]:
    return [evaluation for evaluation in evaluations if evaluation.proposal.note["batch"] in numbers]


def judged_in_third_batch(whole: list[Evaluation]) -> str:
    """The digest of its last candidate inside the budget."""
    return [item.architecture.digest for item in in_batches(whole, 2) if item.state != "screened"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("cpus_per_task", [1, 2], ids=["two_workers", "one_worker"])
def test_search_on_ray_writes_the_journal_of_a_serial_one(
    ray_executor: RayExecutor, whole: list[Evaluation], cpus_per_task: int
) -> None:
    assert ray_executor is not None
    executor = RayExecutor(resources=Resources(cpus=cpus_per_task))
    assert ray_search.search_with(executor, problem.MemoryJournal(), problem.AdditiveProblem()) == whole


@pytest.mark.slow
def test_worker_killed_in_a_search_loses_no_evaluation(
    ray_executor: RayExecutor, whole: list[Evaluation], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    deadly = ray_search.Deadly(problem.AdditiveProblem(), judged_in_third_batch(whole), mark)
    assert ray_search.search_with(ray_executor, problem.MemoryJournal(), deadly) == whole
    assert mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, None], ids=["cheap", "dear"])
def test_worker_killed_at_either_level_of_halving_loses_no_evaluation(
    ray_executor: RayExecutor, tmp_path: Path, level: int | None
) -> None:
    task = problem.AdditiveProblem(space=test_halving.SPACE)
    settings: dict[str, Any] = {"engine": "regularised", "evaluations": 8}
    whole = test_halving.run(task, **settings).evaluations
    judged = [one for one in whole if one.proposal.level == level and one.state == "complete"]
    estimators: list[Any] = [test_halving.Related(task), task]
    place = 0 if level == 0 else 1
    estimators[place] = ray_search.Deadly(estimators[place], judged[-1].architecture.digest, tmp_path / "mark")
    levels = [QualityLevel(estimator=estimators[0], price=0.1), QualityLevel(estimator=estimators[1])]
    result = test_halving.run(task, **settings, executor=ray_executor, quality_estimator=levels)
    assert (tmp_path / "mark").exists()
    assert problem.without_times(result.evaluations) == problem.without_times(whole)


def search_and_kill(victim: str, whole: list[Evaluation], folder: Path) -> subprocess.CompletedProcess[str]:
    """Search in another process, where a candidate of the third batch kills ``victim``; ``folder`` gets the journal."""
    digest = judged_in_third_batch(whole)
    finished = subprocess.run(
        [sys.executable, ray_search.__file__, str(folder / "journal"), str(folder / "mark"), digest, victim],
        env={**os.environ, **NOTICE_A_LOST_NODE_SOON},
        stdout=subprocess.DEVNULL,  # Ray's notes on the node
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (folder / "mark").exists(), finished.stderr
    return finished


@pytest.mark.slow
def test_node_lost_in_a_search_loses_no_evaluation(whole: list[Evaluation], tmp_path: Path) -> None:
    finished = search_and_kill("node", whole, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert problem.without_times(Journal(tmp_path / "journal").read()) == whole


@pytest.mark.slow
def test_search_goes_on_after_its_only_node_was_killed(whole: list[Evaluation], tmp_path: Path) -> None:
    finished = search_and_kill("only_node", whole, tmp_path)
    assert finished.returncode == 6, finished.stderr
    assert "Ray was lost: LocalRaylet" in finished.stderr
    journal = Journal(tmp_path / "journal")
    kept = problem.without_times(journal.read())
    assert kept == whole[: len(kept)]
    assert in_batches(kept, 0, 1) == in_batches(whole, 0, 1)
    estimator = problem.AdditiveProblem()
    assert ray_search.search_with(SerialExecutor(), journal, estimator) == whole
    assert not {evaluation.architecture.digest for evaluation in kept} & set(estimator.judged)
