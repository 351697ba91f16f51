"""The Swift runner of a kit: a library with a command for macOS, and an app package for iOS with the same library."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from nas.core.files import write_text_atomically

if TYPE_CHECKING:
    from pathlib import Path

_LIBRARY = "Sources/KitRunner"
BUNDLE = "org.mobile-video-nas.measure"


def write_runner(folder: Path) -> None:
    """Write ``runner`` and ``MeasureApp.swiftpm`` into ``folder``; what is there under these names is replaced.

    An app package may not reach outside its own folder, so it gets a copy of the library's sources.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    with as_file(files("nas.export.kit").joinpath("swift")) as sources:
        for name in ("runner", "MeasureApp.swiftpm"):
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.copytree(sources / name, folder / name)
    shutil.copytree(folder / "runner" / _LIBRARY, folder / "MeasureApp.swiftpm" / _LIBRARY)


def write_readme(folder: Path, *, kit: str, device: str, jobs: int, measure_minutes: float) -> None:
    """Write the page that says what to type on a Mac."""
    text = _README.format(kit=kit, device=device, jobs=jobs, minutes=measure_minutes, bundle=BUNDLE, name=folder.name)
    write_text_atomically(folder / "README.md", text)


_README = """\
# Profiling kit {kit}

{jobs} jobs for {device}, about {minutes:.0f} minutes of calls and rests; compiling and loading come on top.
Copy this folder to a Mac with Xcode 15.3 or newer and type there, in this folder:

    open MeasureApp.swiftpm   # choose your team and the phone, press Run once
    xcrun devicectl device copy to --device NAME --domain-type appDataContainer --domain-identifier {bundle} \
--source . --destination Documents/kit
    xcrun devicectl device copy from --device NAME --domain-type appDataContainer --domain-identifier {bundle} \
--source Documents/records.jsonl --destination records.jsonl

Press "Measure" in the app between the last two lines: unplugged from the debugger, screen on, airplane mode, built for
release (Product, Scheme, Edit Scheme, Run, Build Configuration). `xcrun devicectl list devices` has NAME. For the Mac
itself one line does it: `swift run -c release --package-path runner measure .`

Back on this machine: `nas profile RUN --import records.jsonl`. Called again, the runner goes on where it stopped; a job
that ended the runner is noted as failed and not tried again.

Neither the runner nor the app has been compiled by those who wrote this kit: there is no Swift compiler with Core ML
outside macOS. Their syntax and the keys that they write are tested. `device_record.schema.json` is what a line holds.
"""
