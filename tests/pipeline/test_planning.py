"""``nas profile --plan``: what it serves, what it prints, and what taking the measurements leaves in the run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from latency_models import choose_networks, distinct_blocks, measure_all, read_profile
from nas.cli.main import main
from nas.core.cost import Budget
from nas.core.errors import ProfileError
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.core.protocols import SilentProgress
from nas.pipeline.calibrate import perform
from nas.pipeline.context import Context, open_run
from nas.pipeline.costs import load_cost_table
from nas.pipeline.networks import block_job, network_jobs
from nas.pipeline.planning import plan_measurements
from nas.pipeline.profile import measurement_plan
from nas.runs.front import FrontFile, write_front
from tests.integration.small_run import SMALL_RUN
from tests.latency_models.conftest import CountingBackend

if TYPE_CHECKING:
    from pathlib import Path

    from latency_models import CostTable, MeasurementJob, MeasurementPlan
    from nas.core.profile import DeviceInfo, ProfileRecord


class Host(CountingBackend):
    """A host that times nothing: every subject takes two milliseconds; ``device`` says where jobs are built."""

    def __init__(self) -> None:
        super().__init__()
        self.described, self.device = self.device, "cpu"  # type: ignore[assignment]  # as of TorchHostBackend

    def describe(self) -> DeviceInfo:
        return self.described

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool) -> ProfileRecord:
        record = replace(super().measure(job, plan, memory=memory), device=self.described)
        time = f"2026-01-01T00:00:{len(self.calls):02d}"
        return replace(record, taken_at=time, architecture=job.architecture, block=job.block)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("nas.pipeline.profile.host_backend", lambda _context: Host())
    text = SMALL_RUN.replace("DIRECTORY", str(tmp_path / "runs"))
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("phases:")]
    (tmp_path / "small.yaml").write_text("".join(lines))
    return str(open_run(str(tmp_path / "small.yaml")).directory.path)


def records(context: Context) -> list[str]:
    return [record.subject for record in read_profile(context.path("profile", "records.jsonl")).records]


def test_a_plan_is_printed_and_nothing_is_written(run: str) -> None:
    result = invoke("profile", run, "--plan", "3", "--json")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["schema"] == "nas/profile_plan/1"
    assert len(plan["steps"]) == 3
    ratios = [plan["front_sd_ratio"], *(step["front_sd_ratio"] for step in plan["steps"])]
    assert ratios == sorted(ratios, reverse=True)
    assert plan["front"] == "random networks nearest the budget"
    assert not (open_run(run).path("profile")).exists()


def test_planned_measurements_are_taken_and_the_next_plan_has_others(run: str) -> None:
    planned = [step.subject for step in plan_measurements(open_run(run), 4).steps]
    result = invoke("profile", run, "--plan", "4", "--measure", "--json")
    assert result.exit_code == 0, result.stderr
    context = open_run(run)
    assert set(records(context)) == set(planned)
    assert context.directory.state("profile") == "done"
    assert not {step.subject for step in plan_measurements(context, 4).steps} & set(planned)


def test_more_measurements_change_what_the_calibration_read(run: str) -> None:
    invoke("profile", run, "--plan", "2", "--measure")
    before = open_run(run).path("profile", "stage.json").read_text()
    result = invoke("profile", run, "--plan", "2", "--measure")
    assert result.exit_code == 0, result.stderr
    context = open_run(run)
    assert len(set(records(context))) == 4
    assert context.path("profile", "stage.json").read_text() != before
    assert context.directory.damaged("profile") == ()


def test_phases_are_measured_beside_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.pipeline.profile.host_backend", lambda _context: Host())
    (tmp_path / "small.yaml").write_text(SMALL_RUN.replace("DIRECTORY", str(tmp_path / "runs")))
    run = str(open_run(str(tmp_path / "small.yaml")).directory.path)
    result = invoke("profile", run, "--plan", "1", "--measure")
    assert result.exit_code == 0, result.stderr
    assert set(records(open_run(run))) > {"text_encoder", "decoder", "overhead"}


def test_a_plan_serves_the_front_of_the_run(run: str) -> None:
    context = open_run(run)
    context.path("search").mkdir()
    table = load_cost_table_of_prior(context)
    network = context.space.from_options([1] + [0] * (len(context.space.slots()) - 1))
    quality = Quality(score=1.0, standard_error=None, estimator="test", fidelity="none")
    member = Evaluation(
        number=0,
        proposal=Proposal(architecture=network, note={}),
        cost=table.estimate(network),
        quality=quality,
        violations=(),
        state="complete",
        error=None,
        seconds=0.0,
    )
    front = FrontFile(
        members=(member,),
        budget=Budget(),
        selected=network.digest,
        selection="knee",
        hypervolume=0.0,
        reference=(1e9, 1e9, 0.0),
        quality_estimator="test",
        screened=0,
        complete=1,
    )
    write_front(context.path("search", "front.json"), front)
    plan = plan_measurements(context, 1)
    assert (plan.front, plan.num_front) == ("the run's front", 1)
    # One member: measuring it whole leaves nothing to be learnt that its own noise does not hide.
    assert (plan.steps[0].level, plan.steps[0].subject) == ("network", network.digest)


def load_cost_table_of_prior(context: Context) -> CostTable:
    return load_cost_table(replace(context, config=context.config.model_copy(update={"calibrate": None})))


def test_a_plan_per_second_weighs_networks_by_their_longer_measurement(run: str) -> None:
    context = open_run(run)
    each = plan_measurements(context, 12)
    per_second = plan_measurements(context, 12, per_cost=True)
    assert sum(step.cost_s for step in per_second.steps) < sum(step.cost_s for step in each.steps)


def test_a_plan_is_for_the_unit_that_the_run_prices(run: str) -> None:
    context = open_run(run)
    blocks = distinct_blocks(context.space, context.scenario)
    context.path("profile").mkdir()
    path = context.path("profile", "records.jsonl")
    networks = choose_networks(context.space, 2, context.streams)
    measure_all(Host(), network_jobs(context.space, networks, context.scenario, "cpu"), measurement_plan(context), path)
    elsewhere = Host()
    elsewhere.described = replace(elsewhere.described, compute_unit="gpu")
    jobs = [block_job(spec, context.scenario, "cpu") for spec in blocks.values()]
    later = context.path("profile", "gpu.jsonl")
    measure_all(elsewhere, jobs, measurement_plan(context), later)
    path.write_text(path.read_text() + later.read_text().replace("2026-01", "2026-02"))
    assert set(records(context)) > set(blocks)
    planned = {step.subject for step in plan_measurements(context, 1000).steps}
    assert planned >= set(blocks)
    assert not planned & {network.digest for network in networks}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--measure"], "need --plan N"),
        (["--plan", "3", "--force"], "--plan goes with neither --force"),
        (["--plan", "3", "--dry-run"], "--plan goes with neither --force nor --dry-run"),
        (["--plan", "3", "--measure", "--jobs", "jobs.json"], "--jobs writes them for a phone: one"),
        (["--plan", "0"], "--plan must be at least 1, got 0"),
    ],
)
def test_senseless_plans_are_refused(run: str, options: list[str], message: str) -> None:
    result = invoke("profile", run, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_yaml_can_name_the_os_version_to_price(run: str) -> None:
    context = open_run(run)
    named = context.config.model_copy(
        update={"calibrate": context.config.calibrate.model_copy(update={"os_build": "9Z9"})}  # type: ignore[union-attr]  # the small run has one
    )
    backend = Host()
    jobs = [
        block_job(spec, context.scenario, "cpu") for spec in distinct_blocks(context.space, context.scenario).values()
    ]
    jobs += network_jobs(context.space, choose_networks(context.space, 12, context.streams), context.scenario, "cpu")
    context.path("profile").mkdir()
    measure_all(backend, jobs, measurement_plan(context), context.path("profile", "records.jsonl"))
    with pytest.raises(ProfileError, match="no records of OS version '9Z9' on 'cpu'; there are 'os' on 'cpu'"):
        perform(replace(context, config=named), context.path("calibrate"), SilentProgress())
