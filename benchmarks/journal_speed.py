"""How long a study of many evaluations takes to open, beside Optuna's JournalStorage and SQLite with the same trials.

    python benchmarks/journal_speed.py --out benchmarks/results

Prices ``--count`` random architectures of ``snapgen_v/1`` on the table of ``cost_table_speed.py``, gives them a random
score, and writes them with ``nas.runs.Journal``. Opening is timed in three parts: reading; going on with the search
(reading, pricing a sample again, telling an engine that learns nothing, finding the front); and ``nas show RUN front``
as a process. The peers hold the first ``--peer-count`` of them as trials with the same parameters, objectives and
attributes: the copy that ``search.mirror`` writes, opened with ``optuna.load_study`` and ``study.trials``, and the same
in SQLite. Peers take so long that they hold fewer; the last column is in proportion. Journals of version 0.1 are
written as it did. Times are processor seconds, of the journal the median of ``--rounds``. Writes
``journal_speed.json`` and ``journal_speed.md``.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import sqlalchemy
from cost_table_speed import make_table
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.core.cost import Budget
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.core.files import canonical_json, write_json, write_text_atomically
from nas.core.pareto import ParetoFront, reference_point
from nas.core.provenance import host, timestamp, versions
from nas.core.schema import from_data, to_data
from nas.runs.front import FrontFile, write_front
from nas.runs.journal import Journal
from nas.search.loop import search
from nas.search.optuna_mirror import OptunaMirror

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models import CostTable

STUDY = "journal-speed"
BATCH = 64
RUN = """\
run: {{name: show, seed: 0, directory: {folder}/runs}}
space: {{name: snapgen_v, version: 1}}
scenario: {{frames: 16, height: 512, width: 512, denoising_steps: 4, precision: float16, compute_units: cpu_and_gpu}}
device: {{name: iphone16_pro_max}}
budget: {{latency_share: 0.9}}
search: {{engine: {{type: random}}, evaluations: 4, mirror: false}}
quality: {{type: temporal_capacity}}
"""


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--count", type=int, default=100_000, help="evaluations in the journal")
    parser.add_argument("--peer-count", type=int, default=1_000, help="trials in the peers, and in a smaller journal")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of the journal; peers are opened once")
    parser.add_argument("--seed", type=int, default=0, help="seed of architectures and scores")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.count, options.peer_count, options.rounds, options.seed)
    write_json(options.out / "journal_speed.json", result)
    write_text_atomically(options.out / "journal_speed.md", markdown(result))
    print(markdown(result))


def measure(folder: Path, count: int, peer_count: int, rounds: int, seed: int) -> dict[str, Any]:
    """Write the studies and open them."""
    table, _ = make_table()
    evaluations, budget = make_evaluations(table, count, seed)
    journal, small = Journal(folder / "evaluations.jsonl"), Journal(folder / "small.jsonl")
    start = time.process_time()
    journal.append(evaluations)
    append_s = time.process_time() - start
    small.append(evaluations[:peer_count])
    few = evaluations[:peer_count]
    assert journal.read()[:peer_count] == few
    rows = {
        "read": timed(journal.read, rounds),
        "read_small": timed(small.read, rounds),
        "go_on": timed(lambda: go_on(table, journal, budget, evaluations), rounds),
        "show": show_s(folder, journal, evaluations, budget),
        **peers(folder, table, few),
        **version_0_1(folder, table, few),
    }
    return {
        "taken_at": timestamp(),
        "host": host(),
        "versions": versions(),
        "seed": seed,
        "count": count,
        "peer_count": peer_count,
        "rounds": rounds,
        "append_microseconds": append_s / count * 1e6,
        "bytes_each": journal.path.stat().st_size / count,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "seconds": rows,
    }


def make_evaluations(table: CostTable, count: int, seed: int) -> tuple[list[Evaluation], Budget]:
    """Return distinct candidates with their costs as the search keeps them; three in ten break the budget."""
    generator = np.random.default_rng(seed)
    drawn = np.stack([generator.integers(size, size=count + 100) for size in table.num_options], axis=1)
    options = np.unique(drawn, axis=0)
    generator.shuffle(options)
    options = options[:count]
    budget = Budget(latency_ms=float(np.quantile(table.score(options).latency_high_ms, 0.7)))
    evaluations = []
    for number, row in enumerate(options.tolist()):
        architecture = table.space.from_options(row)
        cost = table.estimate(architecture).totals()
        violations = budget.violations(cost)
        quality = Quality(score=float(generator.random()), estimator="random", fidelity="none", origin="proxy")
        evaluations.append(
            Evaluation(
                number=number,
                proposal=Proposal(architecture=architecture, note={"batch": number // BATCH, "idle": 0}),
                cost=cost,
                quality=None if violations else quality,
                violations=violations,
                state="screened" if violations else "complete",
                seconds=0.0 if violations else 12.5,
            )
        )
    return evaluations, budget


class LastBatch:
    """An engine that learns nothing, as random search, and proposes the journal's last batch again."""

    def __init__(self, proposals: list[Proposal]) -> None:
        self._proposals = proposals

    def ask(self, count: int) -> list[Proposal]:
        """Propose what is left of the batch."""
        taken, self._proposals = self._proposals[:count], self._proposals[count:]
        return taken

    def tell(self, evaluations: Any) -> None:
        """Learn nothing."""


def go_on(table: CostTable, journal: Journal, budget: Budget, evaluations: list[Evaluation]) -> None:
    """Go on with a search that has paid for all it may: what takes time is taking up the journal and the front."""
    last = [
        one for one in evaluations[-2 * BATCH :] if one.proposal.note["batch"] == evaluations[-1].proposal.note["batch"]
    ]
    result = search(
        table.space,
        LastBatch([Proposal(architecture=one.architecture) for one in last]),
        cost_model=table,
        quality_estimator=Unpaid(),
        budget=budget,
        journal=journal,
        evaluations=sum(one.state == "complete" for one in evaluations),
        batch=BATCH,
    )
    assert len(result.evaluations) == len(evaluations)


class Unpaid:
    """An estimator that is never asked."""

    name, fidelity = "random", "none"

    def estimate(self, architecture: Any) -> Quality:
        """Refuse: everything is in the journal."""
        raise AssertionError(f"{architecture} was paid for again")


def show_s(folder: Path, journal: Journal, evaluations: list[Evaluation], budget: Budget) -> dict[str, float]:
    """Return the processor seconds of ``nas show RUN front`` on a run with this journal, and of ``nas --version``."""
    (folder / "run.yaml").write_text(RUN.format(folder=folder))
    subprocess.run([sys.executable, "-m", "nas", "search", str(folder / "run.yaml"), "--quiet"], check=True)
    (run,) = (folder / "runs").iterdir()
    front = ParetoFront.of(evaluations)
    reference = reference_point(evaluations, budget)
    write_front(
        run / "search" / "front.json",
        FrontFile(
            members=front.members, budget=budget, selected=front.members[0].architecture.digest, selection="fastest",
            hypervolume=front.hypervolume(reference), reference=reference[:3], quality_estimator="random",
            screened=sum(one.state == "screened" for one in evaluations),
            complete=sum(one.state == "complete" for one in evaluations),
        ),
    )  # fmt: skip
    (run / "search" / "evaluations.jsonl").write_bytes(journal.path.read_bytes())
    return {
        name: child_s(arguments)
        for name, arguments in (("show", ["show", str(run), "front"]), ("start", ["--version"]))
    }


def child_s(arguments: list[str]) -> float:
    """Return the processor seconds of one command line."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "nas", *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peers(folder: Path, table: CostTable, evaluations: list[Evaluation]) -> dict[str, float]:
    """Return the seconds in which Optuna opens the same evaluations from its two kinds of file."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / "optuna.journal"
    start = time.process_time()
    OptunaMirror(path, table.space, STUDY).catch_up(evaluations)
    mirror_s = time.process_time() - start
    url = f"sqlite:///{folder / 'optuna.db'}"
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", lambda one, _: one.execute("PRAGMA synchronous=OFF"))

    def open_journal() -> int:
        return len(optuna.load_study(study_name=STUDY, storage=JournalStorage(JournalFileBackend(str(path)))).trials)

    def open_sqlite() -> int:
        return len(optuna.load_study(study_name=STUDY, storage=url).trials)

    journal_s = timed(open_journal, 1)
    optuna.copy_study(from_study_name=STUDY, from_storage=JournalStorage(JournalFileBackend(str(path))), to_storage=url)
    assert open_sqlite() == len(evaluations)
    return {"write_mirror": mirror_s, "optuna_journal": journal_s, "optuna_sqlite": timed(open_sqlite, 1)}


def version_0_1(folder: Path, table: CostTable, evaluations: list[Evaluation]) -> dict[str, float]:
    """Return the seconds for a journal as version 0.1 wrote it, with the split of paid costs, read its way and ours."""
    old = Journal(folder / "old.jsonl")
    whole = [one if one.violations else replace(one, cost=table.estimate(one.architecture)) for one in evaluations]
    lines = [canonical_json(to_data(one)) for one in whole]
    old.path.write_text("".join(f"{line}\n" for line in lines))
    assert old.read() == whole

    def as_it_did() -> list[Evaluation]:
        return [from_data(Evaluation, json.loads(line)) for line in old.path.read_text().splitlines()]

    return {
        "old_file": timed(old.read, 1),
        "old_file_old_reader": timed(as_it_did, 1),
        "old_bytes_each": old.path.stat().st_size / len(evaluations),
    }


def timed(call: Callable[[], Any], rounds: int) -> float:
    """Return the median of the processor seconds of ``call``."""
    seconds = []
    for _ in range(rounds):
        gc.collect()
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a page."""
    seconds, count, few = result["seconds"], result["count"], result["peer_count"]
    rows = [
        ("journal: read", count, seconds["read"]),
        ("journal: read, priced again, front found, ready to go on", count, seconds["go_on"]),
        ("`nas show RUN front`, whole process", count, seconds["show"]["show"]),
        ("journal: read", few, seconds["read_small"]),
        ("journal of version 0.1, read by this version", few, seconds["old_file"]),
        ("journal of version 0.1, read as it did", few, seconds["old_file_old_reader"]),
        ("Optuna JournalStorage", few, seconds["optuna_journal"]),
        ("Optuna SQLite", few, seconds["optuna_sqlite"]),
    ]
    table = "\n".join(
        f"| {what} | {number:,} | {time_s:.2f} | {time_s / number * 1e5:.2f} |" for what, number, time_s in rows
    )
    return f"""# Opening a study

`snapgen_v/1`, random architectures, three in ten over the budget; processor seconds of one thread, journal: median of
{result["rounds"]} rounds, the rest once. The last column is in proportion.

| what is opened | evaluations | seconds | seconds for 100,000 |
| --- | --- | --- | --- |
{table}

Appending took {result["append_microseconds"]:.0f} microseconds each, copying to Optuna's file
{seconds["write_mirror"] / few * 1e6:.0f}. A line has {result["bytes_each"]:.0f} bytes on average, one of version 0.1
{seconds["old_bytes_each"]:.0f}. Starting `nas` alone took {seconds["show"]["start"]:.2f} s. Peak memory of the whole
benchmark {result["peak_memory_mb"]:.0f} MB. Seed {result["seed"]}.

{result["taken_at"]}, {result["host"]}
"""


if __name__ == "__main__":
    main()
