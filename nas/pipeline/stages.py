"""The order of the stages, what each reads, and the one loop that runs them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nas.core.errors import ConfigError, InputError, UnavailableError
from nas.pipeline.checks import HOSTS
from nas.pipeline.further_devices import predictor_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nas.config.run import RunConfig
    from nas.core.protocols import Progress
    from nas.pipeline.context import Context
    from nas.pipeline.planning import ProfilePlan
    from nas.runs.directory import RunDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: the module that does it, the stages it reads, and the sections of the YAML it depends on.

    A stage that is read must be done, unless the YAML has no section for it or it was left out. ``always`` stages run
    even when they are done.
    """

    name: str
    reads: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    always: bool = False

    def function(self) -> Callable[[Context, Path, Progress], str]:
        """Import and return ``perform(context, folder, progress)``, which returns one line for people."""
        function: Callable[[Context, Path, Progress], str] = import_module(f"nas.pipeline.{self.name}").perform
        return function


_COST = ("space", "scenario", "device")
STAGES: tuple[Stage, ...] = (
    Stage(name="profile", sections=(*_COST, "phases", "profile")),
    Stage(name="calibrate", reads=("profile",), sections=(*_COST, "calibrate", "budget")),
    Stage(name="search", reads=("calibrate",), sections=(*_COST, "devices", "phases", "budget", "search", "quality")),
    Stage(name="train", reads=("search",), sections=("space", "scenario", "train", "quality")),
    Stage(name="export", reads=("search", "train"), sections=("space", "scenario", "export")),
    Stage(name="closed_loop", reads=("search",), sections=(*_COST, "phases", "closed_loop")),
    Stage(name="report", always=True),
)
_RECORDS = "profile/records.jsonl"
_BY_NAME = {stage.name: stage for stage in STAGES}


def chosen_stages(config: RunConfig, names: tuple[str, ...] | None) -> tuple[Stage, ...]:
    """Return the named stages, or every stage whose section the YAML has.

    Raises:
        ConfigError: A named stage has no section in the YAML.
    """
    given = tuple(stage for stage in STAGES if getattr(config, stage.name) is not None)
    if names is None:
        return given
    missing = [name for name in names if _BY_NAME[name] not in given]
    if missing:
        raise ConfigError(f"the YAML has no section {missing[0]!r}", hint=f"add `{missing[0]}: {{}}`")
    return tuple(_BY_NAME[name] for name in names)


def plan(
    config: RunConfig, directory: RunDirectory | None, names: tuple[str, ...] | None, *, force: bool = False
) -> list[dict[str, str]]:
    """Say for each stage what ``perform`` would do; ``directory`` is None for a run that has not begun."""
    rows = []
    for stage in chosen_stages(config, names):
        state = directory.state(stage.name) if directory else "pending"
        done = state == "done" and not stage.always
        stale = stale_inputs(config, directory, stage.name) if directory and done else ()
        reason = None if done and not force else _skip_reason(config, stage, done=done)
        if done and force:
            text = f"done, kept: {reason}" if reason else "done, to do again"
        elif stale:
            text = f"stale: {', '.join(stale)} changed; needs --force"
        elif reason:
            text = f"left out: {reason}"
        else:
            text = "done, kept" if done else f"{state}, to do"
        rows.append({"stage": stage.name, "state": "stale" if stale else state, "text": text})
    return rows


def perform(
    context: Context,
    names: tuple[str, ...] | None,
    *,
    force: bool,
    progress: Callable[[str], Progress],
    say: Callable[[str], None],
) -> None:
    """Run stages in order; what is done and fresh is kept. The caller holds the directory's lock.

    With ``force`` a stage is done again. It and the stages that read it, directly or not, are set back to pending
    before their files are cleared, so a kill at any moment leaves a run that goes on without ``force``.

    Raises:
        InputError: A stage that is read is missing or damaged, or a finished stage is stale.
        NasError: Whatever a stage raises; its state is ``failed`` and what it wrote stays for the next try.
    """
    for name in context.directory.mark_interrupted():
        say(f"{name}: was interrupted, goes on")
    say(f"run directory: {context.directory.path}")
    for stage in chosen_stages(context.config, names):
        say(f"{stage.name}: {_perform_stage(context, stage, force=force, progress=progress)}")


def perform_part(
    context: Context, name: str, *, progress: Callable[[str], Progress], say: Callable[[str], None]
) -> str:
    """Do part of a stage, as ``context`` says, in its folder; its state stays as it is. The caller holds the lock.

    Returns:
        One line for people.

    Raises:
        InputError: A stage that is read is missing or damaged.
        UnavailableError: The stage cannot run here.
        NasError: Whatever the stage raises; what it wrote stays for the next try.
    """
    (stage,) = chosen_stages(context.config, (name,))
    reason = _skip_reason(context.config, stage, done=False)
    if reason:
        raise UnavailableError(f"{name} cannot run here: {reason}", hint=f"`--set {name}.needs_gpu=false` tries anyway")
    _inputs(context.config, context.directory, stage)
    folder = context.path(name)
    if context.directory.was_reset(name):
        _clear(folder)
    folder.mkdir(exist_ok=True)
    say(f"run directory: {context.directory.path}")
    return stage.function()(context, folder, progress(name))


def extend_profile(context: Context, plan: ProfilePlan, *, progress: Progress) -> str:
    """Take planned measurements and append them to the profile, which is then done; what read it becomes stale.

    The caller holds the directory's lock.

    Returns:
        One line for people.

    Raises:
        InputError: The profile is damaged.
        UnavailableError: The device is not this host.
        MeasurementError: A block cannot be run; what was measured is kept.
    """
    from nas.pipeline.planning import take_measurements
    from nas.pipeline.profile import host_backend

    backend = host_backend(context)  # before the stage begins: a phone's profile stays as it is
    directory, stage = context.directory, _BY_NAME["profile"]
    if directory.state(stage.name) == "done":
        directory.require(stage.name)
    if directory.was_reset(stage.name):
        _clear(directory.path / stage.name)
    with directory.stage(stage.name, (), settings=_settings(context.config, stage)) as folder:
        return take_measurements(context, plan, backend, folder, progress)


def _perform_stage(context: Context, stage: Stage, *, force: bool, progress: Callable[[str], Progress]) -> str:
    """Do one stage, keep it or leave it out; return what was done as a line for people."""
    directory, name = context.directory, stage.name
    done = directory.state(name) == "done" and not stage.always
    reason = _skip_reason(context.config, stage, done=done)
    if done and (reason or not force):
        stale = stale_inputs(context.config, directory, name)
        if stale:
            raise InputError(
                f"{directory.path}: stage {name!r} is stale: {', '.join(stale)} changed since it ran",
                hint=f"nas {name.replace('_', '-')} {directory.path} --force does it again and sets back what reads it",
            )
        directory.require(name)
        return f"done, kept; --force cannot do it again here: {reason}" if force else "done, kept"
    if reason:
        if directory.was_reset(name):
            _clear(directory.path / name)
        directory.skip(name, reason)
        return f"left out: {reason}"
    inputs = _inputs(context.config, directory, stage)
    if force and not stage.always:
        if name == "search" and (directory.path / name / "evaluations.jsonl").is_file():
            # A budget that nothing keeps would clear the journal of an earlier search for nothing.
            import_module("nas.pipeline.feasible").feasible_prices(context)
        _set_back(context.config, directory, name)
    if directory.was_reset(name) and not stage.always:
        _clear(directory.path / name)
    with directory.stage(name, inputs, settings=_settings(context.config, stage)) as folder:
        return stage.function()(context, folder, progress(name))


def add_to_profile(context: Context, add: Callable[[], bool]) -> None:
    """Let ``add`` write into the profile's folder; the caller holds the directory's lock.

    A phone's profile is then done, which is all there is to it; stages that read it become stale. A host's stays as it
    was unless it was done, since it has its own measurements to make. ``add`` says whether it wrote anything; what a
    killed import wrote before it was noted is noted now.

    Raises:
        NasError: Whatever ``add`` raises.
    """
    directory, stage = context.directory, _BY_NAME["profile"]
    folder = directory.path / stage.name
    if directory.was_reset(stage.name):
        _clear(folder)
    added = add()
    done = directory.state(stage.name) == "done"
    changed = added or (folder.is_dir() and (not done or directory.damaged(stage.name)))
    if changed and (done or context.config.device.name not in HOSTS):
        with directory.stage(stage.name, (), settings=_settings(context.config, stage)):
            pass


def _set_back(config: RunConfig, directory: RunDirectory, name: str) -> None:
    """Set a stage and those that depend on it back to pending, then clear their folders.

    What a kill leaves of the folders is cleared when their stages begin. The report is left until it is written anew.
    """
    states = directory.states()
    names = [name]
    for stage in _dependents(config, name):
        state = states[stage].state if stage in states else "pending"
        untouched = state == "pending" or (state == "skipped" and not (directory.path / stage).exists())
        if not untouched:
            names.append(stage)
    directory.reset(names)
    for stage in names:
        if not _BY_NAME[stage].always:
            _clear(directory.path / stage)


def _dependents(config: RunConfig, name: str) -> tuple[str, ...]:
    """Return the stages that read stage ``name``, directly or through others, and the ones that read every stage."""
    changed = {name}
    for stage in STAGES:  # in order, so one pass finds every chain
        if changed.intersection(stage.reads) and getattr(config, stage.name) is not None:
            changed.add(stage.name)
    return tuple(stage.name for stage in STAGES if (stage.name in changed or stage.always) and stage.name != name)


def summary(context: Context) -> dict[str, Any]:
    """Return the state of every stage and where the report is."""
    states = context.directory.states()
    lines = [
        f"{name}: {state.state}" + (f" in {state.seconds:.0f} s" if state.seconds is not None else "")
        for name, state in states.items()
        if state.state != "pending"
    ]
    report = context.path("report", "index.html")
    if report.is_file():
        lines.append(f"report: {report.resolve()}")
    return {
        "directory": str(context.directory.path),
        "stages": {name: state.state for name, state in states.items()},
        "report": str(report.resolve()) if report.is_file() else None,
        "lines": lines,
    }


def _skip_reason(config: RunConfig, stage: Stage, *, done: bool) -> str | None:
    measured_here = config.device.name in HOSTS or (config.profile is not None and config.profile.backend is not None)
    if done and stage.name == "profile" and not measured_here:
        return f"its records of {config.device.name!r} were imported"
    if stage.name == "train" and config.train is not None and config.train.needs_gpu:
        import torch

        if not torch.cuda.is_available():
            return "train.needs_gpu is set and torch sees no CUDA device"
    return None


def _inputs(config: RunConfig, directory: RunDirectory, stage: Stage) -> list[str]:
    """Files of earlier stages that this one depends on; the stages must be done and whole."""
    directory.require(*_read_stages(config, directory, stage))
    return _input_files(config, directory, stage)


def _read_stages(config: RunConfig, directory: RunDirectory, stage: Stage) -> list[str]:
    return [name for name in stage.reads if getattr(config, name) is not None and directory.state(name) != "skipped"]


def _input_files(config: RunConfig, directory: RunDirectory, stage: Stage) -> list[str]:
    """The ``stage.json`` of each stage that is read, which holds the digests of the rest.

    Without a calibration the search reads the profile itself, for what failed.
    """
    files = [f"{name}/stage.json" for name in _read_stages(config, directory, stage)]
    if stage.name != "search":
        return files
    failures = config.calibrate is None and (directory.path / _RECORDS).is_file()
    predictors = [str(predictor_file(device).absolute()) for device in config.devices or () if device.predictor]
    return [*files, *([_RECORDS] if failures else []), *predictors]


def _settings(config: RunConfig, stage: Stage) -> dict[str, Any]:
    data = config.model_dump()
    given = {name: data[name] for name in stage.sections if data[name] is not None}
    return {} if stage.always else {"seed": config.run.seed} | given


def stale_inputs(config: RunConfig, directory: RunDirectory, name: str) -> tuple[str, ...]:
    """Return the files and settings that a finished stage depends on and that changed since it ran."""
    stage = _BY_NAME[name]
    return directory.stale(name, _input_files(config, directory, stage), settings=_settings(config, stage))


def _clear(folder: Path) -> None:
    import shutil

    if folder.is_dir():
        shutil.rmtree(folder)
