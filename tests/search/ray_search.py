"""One search for the tests of the executors, and a script that runs it while one of its candidates kills a process.

``python ray_search.py JOURNAL MARK DIGEST VICTIM`` searches on Ray; the first worker to judge ``DIGEST`` makes the file
``MARK`` and kills ``VICTIM``: Ray on one of two nodes (``node``), or on the only one (``only_node``). It exits as the
command line would.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import problem

from nas.core.cost import Budget
from nas.core.errors import NasError
from nas.core.rng import RandomStreams
from nas.runs.journal import Journal
from nas.search import engines, search
from nas.search.executors.ray_cluster import RayExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.core.architecture import Architecture
    from nas.core.evaluation import Evaluation, Quality
    from nas.core.protocols import Executor
    from nas.search.ledger import EvaluationLog
    from nas.search.loop import Mode


@dataclass(frozen=True)
class Deadly:
    """Judges as ``task``, an estimator, does; the first time at ``digest`` it kills its own node or its worker."""

    task: Any
    digest: str
    mark: Path
    node: bool = False
    name: str = "table"
    fidelity: str = "exact"

    def estimate(self, architecture: Architecture) -> Quality:
        if architecture.digest == self.digest and not self.mark.exists():
            self.mark.write_text("killed")
            if self.node:
                os.kill(os.getppid(), signal.SIGKILL)  # Ray's process that starts the workers of a node
            os.kill(os.getpid(), signal.SIGKILL)
        return self.task.estimate(architecture)


def search_with(
    executor: Executor, journal: EvaluationLog, estimator: Any, mode: Mode = "synchronous"
) -> list[Evaluation]:
    """Search 24 candidates in four batches; returns the evaluations without their times."""
    task = problem.AdditiveProblem()
    result = search(
        task.space,
        engines.build("optuna", task.space, {"population": 8}, RandomStreams(0)),
        cost_model=task.prices,
        quality_estimator=estimator,
        budget=Budget(latency_ms=190.0),
        journal=journal,
        evaluations=24,
        batch=6,
        executor=executor,
        mode=mode,
    )
    return problem.without_times(result.evaluations)


@contextmanager
def executor_of(nodes: int) -> Iterator[RayExecutor]:
    """Two workers: of this machine's only node, or of one node each beside a head that runs nothing."""
    if nodes == 1:
        with RayExecutor(workers=2) as executor:
            yield executor
        return
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    with RayExecutor(address=cluster.address) as executor:
        yield executor
    cluster.shutdown()


def main(journal: str, mark: str, digest: str, victim: str) -> int:
    deadly = Deadly(problem.AdditiveProblem(), digest, Path(mark), node="node" in victim)
    try:
        with executor_of(nodes=2 if victim == "node" else 1) as executor:
            search_with(executor, Journal(Path(journal)), deadly)
    except NasError as error:
        sys.stderr.write(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
