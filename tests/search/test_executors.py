from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nas.core.cost import Budget
from nas.core.errors import TrainingError
from nas.core.evaluation import WorkerFailure
from nas.core.rng import RandomStreams
from nas.search import engines, search
from nas.search.executors.ray_cluster import RayExecutor
from nas.search.executors.serial import SerialExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nas.core.evaluation import Evaluation


def square(number: int) -> int:
    return number * number


def test_serial_executor_runs_lazily_and_in_order() -> None:
    called = []
    results = SerialExecutor().map(lambda item: called.append(item) or item * item, [3, 1, 2])
    assert next(results) == 9
    assert called == [3]
    assert list(results) == [1, 4]


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"retries": -1}, {"items_per_task": 0}])
def test_ray_options_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"executor.{next(iter(wrong))} must be at least"):
        RayExecutor(**wrong)


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[RayExecutor]:
    with RayExecutor(workers=2, retries=2) as executor:
        yield executor


GIVE_UP_OFTEN = """
import sys
from random import Random
from time import sleep

from nas.search.executors.ray_cluster import RayExecutor

random = Random(0)
with RayExecutor(address=sys.argv[1]) as executor:
    for _ in range(100):
        results = executor.map(sleep, [random.uniform(0.0, 0.004) for _ in range(4)])
        next(results)
        del results
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
    assert list(ray_executor.map(square, list(range(10)))) == [number * number for number in range(10)]


@pytest.mark.slow
def test_ray_chunks_keep_order(ray_executor: RayExecutor) -> None:
    assert ray_executor is not None  # Ray runs; another executor joins it
    with RayExecutor(items_per_task=4) as chunked:
        assert list(chunked.map(square, list(range(10)))) == [number * number for number in range(10)]
    assert list(ray_executor.map(square, [5])) == [25]  # leaving the second one did not stop the first one's Ray


@pytest.mark.slow
def test_worker_killed_on_first_try_loses_nothing(ray_executor: RayExecutor, tmp_path: Path) -> None:
    def die_once(number: int) -> int:
        mark = tmp_path / str(number)
        if number % 2 and not mark.exists():
            mark.write_text("tried")
            os._exit(1)
        return number * number

    assert list(ray_executor.map(die_once, [0, 1, 2, 3])) == [0, 1, 4, 9]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]


@pytest.mark.slow
def test_worker_that_always_dies_is_a_failure_and_the_rest_goes_on(ray_executor: RayExecutor) -> None:
    def die_on_one(number: int) -> int:
        if number == 1:
            os._exit(1)
        return number * number

    results = list(ray_executor.map(die_on_one, [0, 1, 2]))
    assert results[0] == 0
    assert results[2] == 4
    assert isinstance(results[1], WorkerFailure)
    assert "each of 3 tries" in results[1].message


@pytest.mark.slow
def test_exception_of_the_function_keeps_its_type(ray_executor: RayExecutor) -> None:
    def fail(number: int) -> int:
        raise TrainingError(f"loss of {number} is not a number")

    with pytest.raises(TrainingError, match="loss of 7 is not a number"):
        next(ray_executor.map(fail, [7]))


@pytest.mark.slow
def test_search_on_ray_writes_the_journal_of_a_serial_one(ray_executor: RayExecutor) -> None:
    import problem as shared
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(shared)  # the workers cannot import a module of the tests

    def journal_with(executor: RayExecutor | SerialExecutor) -> list[Evaluation]:
        task = shared.AdditiveProblem()
        result = search(
            task.space,
            engines.build("optuna", task.space, {"population": 8}, RandomStreams(0)),
            cost_model=task.prices,
            quality_estimator=task,
            budget=Budget(latency_ms=190.0),
            journal=shared.MemoryJournal(),
            evaluations=24,
            batch=6,
            executor=executor,
        )
        return shared.without_times(result.evaluations)

    assert journal_with(ray_executor) == journal_with(SerialExecutor())
