"""What was fitted and measured so far, on disk: a run that was killed, or another budget, goes on from there."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from nas.core.files import JsonLines, write_bytes_atomically
from nas.export.compression.tables import fit_tables, looked_up

if TYPE_CHECKING:
    from pathlib import Path

    from nas.export.compression.forms import Form
    from nas.export.compression.weights import Weight
    from nas.export.mil.values import Array

# Of what is kept; raised when ``fit_table`` would give other values.
_VERSION = 2


class Cache:
    """Look-up tables by the weight's bytes and the form, errors by package, inputs, weight and form.

    Args:
        folder: Where to; made when something is kept. None keeps the tables of one weight in memory and nothing else.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.fitted = 0
        self.reused = 0
        self._digest: tuple[str, str] = ("", "")
        self._tables: dict[str, Array] = {}

    def tables(self, weight: Weight, form: Form) -> Array:
        """Return the look-up tables of a palettized weight (groups, ``2**bits``): kept ones, or new ones."""
        key = f"{self._key(weight)}-{form.text.replace(' ', '_')}-{weight.output_axis}"
        if key in self._tables:
            return self._tables[key]
        file = self.folder / "tables" / f"{key}.safetensors" if self.folder else None
        tables = self._kept(file) if file else None
        if tables is None:
            tables = fit_tables(weight.values(), form.bits, axis=weight.output_axis, group_size=form.group_size)
            self.fitted += 1
            if file:
                write_bytes_atomically(file, save({"tables": tables}))
        else:
            self.reused += 1
        if not self.folder:
            self._tables[key] = tables
        return tables

    def palettized(self, weight: Weight, form: Form) -> Array:
        """Return a weight with its values replaced by those of its tables."""
        tables = self.tables(weight, form)
        return looked_up(weight.values(), tables, axis=weight.output_axis, group_size=form.group_size)

    def errors(self, package: str, inputs: str) -> Errors:
        """Return the errors measured on one package (its digest) with one set of inputs (theirs)."""
        name = hashlib.sha256(f"{package} {inputs}".encode()).hexdigest()[:32]
        return Errors(JsonLines(self.folder / "errors" / f"{name}.jsonl") if self.folder else None)

    def _key(self, weight: Weight) -> str:
        if self._digest[0] != weight.constant.where:
            digest = hashlib.sha256(f"{_VERSION} {weight.shape}".encode())
            digest.update(np.ascontiguousarray(weight.values()).data)
            self._digest = (weight.constant.where, digest.hexdigest()[:40])
        return self._digest[1]

    @staticmethod
    def _kept(file: Path) -> Array | None:
        try:
            tables: Array = load_file(file)["tables"]
        except (OSError, SafetensorError, KeyError):  # not there, or damaged: fitted again
            return None
        return tables


class Errors:
    """Noise over signal of layers by weight and form; every new one is on the disk before the next is measured."""

    def __init__(self, file: JsonLines | None) -> None:
        self._file = file
        records = file.read() if file and file.path.exists() else []
        self._known: dict[tuple[str, str], float] = {(item["weight"], item["form"]): item["noise"] for item in records}

    def known(self, weight: str, form: Form) -> float | None:
        """Return what was measured, None where nothing was."""
        return self._known.get((weight, form.text))

    def known_output(self, weight: str, form: Form) -> float | None:
        """Return the noise of the program's outputs with one weight alone in ``form``, None where it is not known."""
        return self._known.get((weight, f"{form.text}, outputs"))

    def add_output(self, weight: str, form: Form, noise: float) -> None:
        """Keep the noise of the program's outputs."""
        self._keep(weight, {f"{form.text}, outputs": noise})

    def add(self, weight: str, noise: dict[Form, float]) -> None:
        """Keep the errors of one weight."""
        self._keep(weight, {form.text: value for form, value in noise.items()})

    def _keep(self, weight: str, noise: dict[str, float]) -> None:
        self._known |= {(weight, form): value for form, value in noise.items()}
        if self._file and noise:
            self._file.extend({"weight": weight, "form": form, "noise": value} for form, value in noise.items())
