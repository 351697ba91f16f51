"""One search on Ray while its driver and its workers are killed again and again.

    python benchmarks/kill_search.py --out benchmarks/results

A search by regularised evolution (12 slots, made-up costs) runs in a process of its own (the driver) on two Ray
workers; its quality takes 20 to 50 ms and notes every finished estimate in a side file. Random kills (signal 9) hit
the driver, which is started again and joins the same Ray, or a worker. At each kill it is noted which evaluations the
journal and the outcomes hold. Checked at the end: nothing that was recorded has ever been judged again; the journal
and the front are those of an undisturbed search in one process (synchronous mode), or no architecture is twice in the
journal (asynchronous mode). What a worker had finished but not yet delivered when it or the driver died is counted.
Writes ``kill_search.json`` and ``kill_search.md``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import psutil
import ray
from table_problem import TableProblem, TableQuality

from nas.core.files import read_json, write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.runs.journal import Journal
from nas.runs.outcomes import Outcomes
from nas.search import SearchResult, engines, search
from nas.search.executors.ray_cluster import RayExecutor
from nas.search.executors.serial import SerialExecutor

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from nas.core.architecture import Architecture
    from nas.core.evaluation import Evaluation, Quality
    from nas.core.protocols import Executor

SLOTS = 12
BATCH = 16
RETRIES = 20  # the same candidate may meet several of the killed workers
LONGEST_WAIT_S = 300.0


@dataclass(frozen=True)
class SlowQuality:
    """A tabulated score; ``side_file`` gets a line when the stated time of an estimate is over."""

    table: TableQuality
    side_file: Path | None = None
    name: str = "slow"
    fidelity: str = "made up"

    def estimate(self, architecture: Architecture) -> Quality:
        """Return the score after 20 to 50 ms, or at once without a side file."""
        quality = self.table.estimate(architecture)
        if self.side_file is not None:
            time.sleep(Random(architecture.digest).uniform(0.02, 0.05))
            handle = os.open(self.side_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, f"{architecture.digest}\n".encode())
            os.close(handle)
        return quality


@dataclass
class Watch:
    """What was seen between the kills."""

    folder: Path
    recorded: list[tuple[int, set[str]]] = field(default_factory=list)  # lines of the side file; digests recorded then
    kills: Counter[str] = field(default_factory=Counter)
    lives: int = 0

    @property
    def last_words(self) -> str:
        """What the driver said last."""
        return (self.folder / "driver.log").read_text()[-2000:]

    @property
    def side_file(self) -> Path:
        """Where estimates are counted."""
        return self.folder / "finished.txt"

    def finished(self) -> list[str]:
        """Return the digest of every finished estimate, in order."""
        return self.side_file.read_text().splitlines() if self.side_file.exists() else []

    def note(self) -> None:
        """Note what is recorded now."""
        outcomes = {item.digest for item in Outcomes(self.folder / "outcomes.jsonl").read()}
        journal = {item.architecture.digest for item in read_journal(self.folder) if item.state != "screened"}
        self.recorded.append((len(self.finished()), outcomes | journal))

    def judged_again(self) -> int:
        """Return how many estimates were finished of what was recorded before."""
        finished = self.finished()
        return sum(digest in known for lines, known in self.recorded for digest in set(finished[lines:]))


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--kills", type=int, default=200, help="kills in the synchronous search")
    parser.add_argument("--asynchronous-kills", type=int, default=50, help="kills in an asynchronous search after it")
    parser.add_argument("--evaluations-per-kill", type=int, default=20, help="length of the searches")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search and of the kills")
    options = parser.parse_args()
    plans = (("synchronous", options.kills), ("asynchronous", options.asynchronous_kills))
    searches = []
    for mode, kills in plans:
        with tempfile.TemporaryDirectory() as folder:
            evaluations = options.evaluations_per_kill * kills
            searches.append(measure(Path(folder), mode, kills, evaluations=evaluations, seed=options.seed))
        result = {"searches": searches, "taken_at": timestamp(), "host": host(), "versions": versions()}
        write_json(options.out / "kill_search.json", result)
        write_text_atomically(options.out / "kill_search.md", markdown(result))
    print(markdown(result))


def measure(folder: Path, mode: str, kills: int, *, evaluations: int, seed: int) -> dict[str, Any]:
    """Search in ``folder`` under ``kills`` random kills and check what is left.

    Raises:
        RuntimeError: The search ended before all kills, or something was lost.
    """
    start = time.monotonic()
    watch, random = Watch(folder), Random(seed)
    with RayExecutor(workers=2):
        settings = {
            "address": ray.get_runtime_context().gcs_address,
            "mode": mode,
            "evaluations": evaluations,
            "seed": seed,
        }
        write_json(folder / "settings.json", settings)
        kill_often(watch, kills, random)
        seconds = time.monotonic() - start
        driver = start_driver(watch)
        driver.join()
        if driver.exitcode != 0:
            raise RuntimeError(f"the driver ended with {driver.exitcode}: {watch.last_words}")
    return summary(watch, settings) | {"seconds_of_kills": seconds, "seconds": time.monotonic() - start}


def kill_often(watch: Watch, kills: int, random: Random) -> None:
    """Kill the driver or a worker at random moments of its work, ``kills`` times."""
    driver: BaseProcess | None = None
    for number in range(kills):
        if driver is None:
            driver = start_driver(watch)
            wait_for_news(watch, driver)
        time.sleep(random.expovariate(2.0))
        if not driver.is_alive():
            raise RuntimeError(f"the search ended after {number} kills with {driver.exitcode}: {watch.last_words}")
        victim = random.choice(("driver", "worker"))
        if victim == "driver":
            kill(driver)
            driver = None
        else:
            kill_worker(random, driver, watch)
        watch.kills[victim] += 1
        watch.note()
        if sys.stderr.isatty():
            print(f"\r{number + 1} of {kills} kills", end="", file=sys.stderr)
    if driver is not None:
        kill(driver)
        watch.note()


def start_driver(watch: Watch) -> BaseProcess:
    """Start the searching process; it is forked from one that has loaded everything and has no Ray."""
    watch.lives += 1
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    driver = context.Process(target=drive, args=(watch.folder,))
    driver.start()
    return driver


def wait_for_news(watch: Watch, driver: BaseProcess) -> None:
    """Wait until the driver's workers have finished something."""
    before = len(watch.finished())
    deadline = time.monotonic() + LONGEST_WAIT_S
    while len(watch.finished()) <= before:
        if not driver.is_alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the driver finished nothing: {watch.last_words}")
        time.sleep(0.02)


def kill(driver: BaseProcess) -> None:
    """Kill the searching process."""
    driver.kill()
    driver.join()


def kill_worker(random: Random, driver: BaseProcess, watch: Watch) -> None:
    """Kill one of Ray's processes that run the search's tasks."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < deadline:
        workers = [process for process in psutil.Process().children(recursive=True) if is_busy(process)]
        if workers:
            random.choice(workers).kill()
            return
        if not driver.is_alive():
            raise RuntimeError(f"the search ended before a worker could be killed: {watch.last_words}")
        time.sleep(0.01)
    raise RuntimeError("no worker was busy")


def is_busy(process: psutil.Process) -> bool:
    """Whether a process is a Ray worker in a task: Ray sets its title."""
    try:
        return any("ray::run_items" in part for part in process.cmdline())
    except psutil.Error:
        return False


def drive(folder: Path) -> None:
    """Search on the Ray that the settings in ``folder`` name, until the end or until killed."""
    log = os.open(folder / "driver.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    settings = read_json(folder / "settings.json")
    for kind in (SlowQuality, TableQuality):  # the workers may not find this program's folder
        ray.cloudpickle.register_pickle_by_value(sys.modules[kind.__module__])
    with RayExecutor(address=settings["address"], retries=RETRIES) as executor:
        search_once(folder, settings, executor, folder / "finished.txt")


def search_once(folder: Path, settings: dict[str, Any], executor: Executor, side_file: Path | None) -> SearchResult:
    """Search, or go on with the search in ``folder``; without a side file qualities are there at once."""
    problem = TableProblem(num_slots=SLOTS)
    space, budget = problem.space, problem.budget
    streams = RandomStreams(settings["seed"])
    return search(
        space,
        engines.build("regularised", space, {}, streams, costs=problem.costs, budget=budget),
        cost_model=problem,
        quality_estimator=SlowQuality(TableQuality.of(problem), side_file),
        budget=budget,
        journal=Journal(folder / "evaluations.jsonl"),
        outcomes=Outcomes(folder / "outcomes.jsonl"),
        evaluations=settings["evaluations"],
        batch=BATCH,
        executor=executor,
        mode=settings["mode"],
    )


def read_journal(folder: Path) -> list[Evaluation]:
    """Return the journal without times; a line that is just being written counts as never written."""
    records = Journal(folder / "evaluations.jsonl").read()
    return [replace(record, seconds=0.0) for record in records]


def summary(watch: Watch, settings: dict[str, Any]) -> dict[str, Any]:
    """Check what the search left and return its figures.

    Raises:
        RuntimeError: An evaluation was lost, judged again, or differs from the undisturbed search's.
    """
    records, finished = read_journal(watch.folder), watch.finished()
    judged = [record.architecture.digest for record in records if record.state == "complete"]
    undisturbed = watch.folder / "undisturbed"
    expected = search_once(undisturbed, {**settings, "mode": "synchronous"}, SerialExecutor(), None)
    again = search_once(watch.folder, settings, SerialExecutor(), None)  # only reads: everything is paid
    same = again.front.points() == expected.front.points()
    faults = {
        "judged again after it was recorded": watch.judged_again(),
        "failed evaluations": sum(record.state == "failed" for record in records),
        "architectures twice in the journal": len(judged) - len(set(judged)),
        "evaluations missing": settings["evaluations"] - len(judged),
    }
    if settings["mode"] == "synchronous":
        faults["finished estimates nowhere in the journal"] = len(set(finished) - set(judged))
        faults["fronts that differ"] = int(not same)
        faults["journals that differ"] = int(records != read_journal(undisturbed))
    if any(faults.values()):
        raise RuntimeError(f"the {settings['mode']} search did not survive: {faults}")
    return {
        "mode": settings["mode"],
        "evaluations": settings["evaluations"],
        "records": len(records),
        "kills": dict(watch.kills),
        "driver_lives": watch.lives,
        "estimates_finished": len(finished),
        "finished_but_not_delivered": len(finished) - len(set(finished) & set(judged)),
        "faults": faults,
        "members_of_front": len(again.front.members),
        "same_front_as_undisturbed": same,
        "seed": settings["seed"],
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a result."""
    searches = result["searches"]
    rows = [
        ("kills of the driver", [one["kills"].get("driver", 0) for one in searches]),
        ("kills of a worker", [one["kills"].get("worker", 0) for one in searches]),
        ("evaluations in the journal", [one["evaluations"] for one in searches]),
        *((fault, [one["faults"].get(fault, "not asked") for one in searches]) for fault in searches[0]["faults"]),
        ("estimates finished on a worker, not delivered", [one["finished_but_not_delivered"] for one in searches]),
        ("members of the front", [one["members_of_front"] for one in searches]),
        ("seconds under kills", [f"{one['seconds_of_kills']:.0f}" for one in searches]),
    ]
    return "\n".join(
        [
            "# A search under kill -9",
            "",
            f"Regularised evolution on a made-up table of {SLOTS} slots with 10 options, two Ray workers, 20 to 50 ms",
            f"an estimate, batches of {BATCH}. Random kills of the searching process, which is started again, and of",
            "workers.",
            "",
            f"| | {' | '.join(one['mode'] for one in searches)} |",
            f"| --- |{' --- |' * len(searches)}",
            *(f"| {name} | {' | '.join(map(str, values))} |" for name, values in rows),
            "",
            "An estimate counts as recorded once the journal or the outcomes beside it hold it. One that a worker had",
            "finished when the worker or the driver was killed before its result had arrived is judged again, or, in",
            "asynchronous mode, may not be asked for again.",
            "In synchronous mode journal and front are those of an undisturbed search in one process.",
            "",
            f"Seed {searches[0]['seed']}. {result['taken_at']}, {result['host']}",
            "",
        ]
    )


if __name__ == "__main__":
    main()
