"""Run directories: one folder a run, with its configuration, stage states and digests of what each stage used."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas.core.errors import InputError
from nas.core.files import (
    canonical_json,
    read_json,
    sha256_path,
    sha256_text,
    write_bytes_atomically,
    write_json,
    write_text_atomically,
)
from nas.core.provenance import manifest, timestamp
from nas.core.schema import check_schema, from_data, to_data, with_schema
from nas.runs.lock import RunLock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

STAGES = ("profile", "calibrate", "search", "train", "export", "closed_loop", "report")

State = Literal["pending", "running", "done", "failed", "interrupted", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """How far one stage is; times are UTC, ISO 8601, ``seconds`` the wall time of its last attempt."""

    state: State = "pending"
    started_at: str | None = None
    finished_at: str | None = None
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """An existing run directory; make one with ``create``, ``for_config`` or ``open``."""

    path: Path

    @classmethod
    def create(
        cls, config: Path, *, parent: Path, name: str, resolved: str, seed: int, command: list[str] | None = None
    ) -> RunDirectory:
        """Make ``parent/<time>-<name>`` with a copy of ``config``, the resolved settings and the manifest.

        Args:
            config: The user's YAML file, copied byte for byte.
            parent: Folder that holds the runs.
            name: Name of the run; characters that file systems dislike become hyphens.
            resolved: YAML text with every default filled in.
            seed: The run's seed, for the manifest.
            command: Command line; this process's when left out.

        Raises:
            InputError: ``config`` does not exist.
            UnavailableError: The folder cannot be written.
        """
        content = _read_bytes(config)
        run = cls(_new_folder(parent, name))
        write_bytes_atomically(run.path / "run.yaml", content)
        write_text_atomically(run.path / "resolved.yaml", resolved)
        write_json(run.path / "manifest.json", with_schema("manifest", 1, manifest(seed=seed, command=command)))
        run._write_states({stage: StageState() for stage in STAGES})  # last: a folder without it is no run directory
        return run

    @classmethod
    def for_config(
        cls, config: Path, *, parent: Path, name: str, resolved: str, seed: int, command: list[str] | None = None
    ) -> RunDirectory:
        """Return the newest run under ``parent`` with these very settings, or create one; see ``create``.

        The settings are equal when ``resolved.yaml`` is, so a changed comment or ``--set`` of a default continues.
        """
        found = cls.find(parent=parent, name=name, resolved=resolved)
        return found or cls.create(config, parent=parent, name=name, resolved=resolved, seed=seed, command=command)

    @classmethod
    def find(cls, *, parent: Path, name: str, resolved: str) -> RunDirectory | None:
        """Return the newest run called ``name`` under ``parent`` with these very settings; ``None`` without one."""
        wanted = resolved.encode()
        for folder in sorted(parent.glob(f"*-{_safe(name)}*"), reverse=True):
            stored = folder / "resolved.yaml"
            if (folder / "status.json").is_file() and stored.is_file() and stored.read_bytes() == wanted:
                return cls.open(folder)
        return None

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return the run directory at ``path``.

        Raises:
            InputError: It does not exist, is no run directory, or its status is damaged.
        """
        missing = [name for name in ("run.yaml", "resolved.yaml", "status.json") if not (path / name).is_file()]
        if missing:
            raise InputError(
                f"{path}: not a run directory: {', '.join(missing)} missing",
                hint="give a folder that `nas run` made, or a YAML file to start one",
            )
        run = cls(path)
        run.states()
        return run

    def lock(self) -> RunLock:
        """Return the lock to hold while writing: ``with run.lock(): …``."""
        return RunLock(self.path)

    def states(self) -> dict[str, StageState]:
        """Return the state of every stage.

        Raises:
            InputError: ``status.json`` is damaged.
        """
        file = self.path / "status.json"
        body = check_schema(read_json(file), "status", 1, where=str(file))
        return from_data(dict[str, StageState], body.get("stages"), where=str(file))

    def state(self, stage: str) -> State:
        """Return the state of one stage; ``pending`` for one that status.json does not know."""
        return self.states().get(stage, StageState()).state

    def skip(self, name: str, reason: str) -> None:
        """Note that a stage was left out, and why."""
        self._set(name, StageState(state="skipped", finished_at=timestamp(), error=reason))

    def reset(self, names: Iterable[str]) -> None:
        """Set stages back to ``pending``, all with one write; what they left is out of date: see ``was_reset``."""
        again = StageState(error="to be done again: it, or a stage that it reads, was forced")
        self._write_states({**self.states(), **dict.fromkeys(names, again)})

    def was_reset(self, name: str) -> bool:
        """Whether a stage was set back and has not begun since, so that files in its folder are to be cleared."""
        state = self.states().get(name, StageState())
        return state.state == "pending" and state.error is not None

    def mark_interrupted(self) -> tuple[str, ...]:
        """Turn stages left ``running`` by a process that is gone into ``interrupted`` and return their names.

        Call it while holding the lock: only then can no live process be running them.
        """
        states = self.states()
        cut = tuple(name for name, state in states.items() if state.state == "running")
        if cut:
            error = "the process ended without a word (killed, or the machine went down)"
            self._write_states(
                {name: replace(s, state="interrupted", error=error) if name in cut else s for name, s in states.items()}
            )
        return cut

    @contextmanager
    def stage(
        self, name: str, inputs: Sequence[str] = (), *, settings: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """Run a stage: ``with run.stage("search", ["calibrate/predictor.json"]) as folder: …``.

        Marks the stage running, then done with ``stage.json`` (digests of inputs, taken at the start, and of every
        file in the folder), failed (any error, its text kept) or interrupted (Ctrl-C, a signal turned into
        ``SystemExit``). The error is raised on.

        Args:
            name: Name of the stage and of its folder.
            inputs: Files or folders it reads, relative to the run directory.
            settings: Parts of the configuration it depends on; each is digested as ``resolved.yaml#<key>``.

        Raises:
            InputError: An input is missing.
        """
        digests = self._input_digests(inputs, settings)
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        start = time.monotonic()
        running = StageState(state="running", started_at=timestamp())
        self._set(name, running)

        def finish(state: State, error: str | None = None) -> None:
            seconds = round(time.monotonic() - start, 3)
            self._set(name, replace(running, state=state, finished_at=timestamp(), seconds=seconds, error=error))

        try:
            yield folder
            write_json(
                folder / "stage.json", with_schema("stage", 1, {"inputs": digests, "outputs": self._outputs(name)})
            )
        except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
            finish("interrupted", type(error).__name__)
            raise
        except BaseException as error:
            finish("failed", f"{type(error).__name__}: {error}")
            raise
        finish("done")

    def stale(
        self, name: str, inputs: Sequence[str] = (), *, settings: Mapping[str, Any] | None = None
    ) -> tuple[str, ...]:
        """Return the inputs of a finished stage that changed, appeared or vanished since it ran.

        Without ``inputs`` and ``settings`` the files it recorded are compared with what they are now.

        Raises:
            InputError: The stage left no readable ``stage.json``.
        """
        recorded = self._recorded(name, "inputs")
        if inputs or settings:
            current = self._input_digests([path for path in inputs if (self.path / path).exists()], settings)
            current.update({path: "" for path in inputs if path not in current})
        else:
            current = self._current(recorded)
        return tuple(sorted(key for key in recorded | current if recorded.get(key) != current.get(key)))

    def damaged(self, name: str) -> tuple[str, ...]:
        """Return the outputs of a finished stage that are missing or differ from their recorded digest.

        Raises:
            InputError: The stage left no readable ``stage.json``.
        """
        recorded = self._recorded(name, "outputs")
        current = self._current(recorded)
        return tuple(sorted(key for key in recorded if recorded[key] != current[key]))

    def require(self, *names: str) -> None:
        """Check that the stages are done and their files whole, before a later stage reads them.

        Raises:
            InputError: One is not; the message names the stage and the files.
        """
        states = self.states()
        for name in names:
            state = states.get(name, StageState()).state
            if state != "done":
                raise InputError(
                    f"{self.path}: stage {name!r} is {state}", hint=f"run it first: nas {name} {self.path}"
                )
            files = self.damaged(name)
            if files:
                raise InputError(
                    f"{self.path}: stage {name!r}: missing or changed since it was written: {', '.join(files)}",
                    hint=f"restore them, or run the stage again: nas {name} {self.path}",
                )

    def _recorded(self, name: str, key: str) -> dict[str, str]:
        file = self.path / name / "stage.json"
        body = check_schema(read_json(file), "stage", 1, where=str(file))
        return from_data(dict[str, str], body.get(key), where=f"{file}: {key}")

    def _input_digests(self, inputs: Sequence[str], settings: Mapping[str, Any] | None) -> dict[str, str]:
        digests = {path: sha256_path(self.path / path) for path in inputs}
        for key, value in (settings or {}).items():
            digests[f"resolved.yaml#{key}"] = sha256_text(canonical_json(to_data(value)))
        return digests

    def _current(self, recorded: Mapping[str, str]) -> dict[str, str]:
        """Digests now of recorded paths; settings, which are not files, count as unchanged, missing files as empty."""
        return {
            key: digest if "#" in key else (sha256_path(self.path / key) if (self.path / key).exists() else "")
            for key, digest in recorded.items()
        }

    def _outputs(self, name: str) -> dict[str, str]:
        files = sorted(path for path in (self.path / name).rglob("*") if path.is_file() and path.name != "stage.json")
        return {path.relative_to(self.path).as_posix(): sha256_path(path) for path in files}

    def _set(self, name: str, state: StageState) -> None:
        self._write_states({**self.states(), name: state})

    def _write_states(self, states: Mapping[str, StageState]) -> None:
        write_json(self.path / "status.json", with_schema("status", 1, {"stages": to_data(states)}))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist") from error


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip(".-") or "run"


def _new_folder(parent: Path, name: str) -> Path:
    stem = f"{timestamp()[:19].replace(':', '')}-{_safe(name)}"
    for number in range(1, 1000):
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{parent}: a thousand runs named {stem!r} already")
