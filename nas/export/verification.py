"""What a package is verified against: inputs and torch's outputs, recorded beside it and bound to it by digest.

One safetensors file per component: ``input.<name>``, ``trained.<output>`` (the network as trained, float32) and, where
the export computed them, ``stored.<output>`` (the network with its weights rounded as the package stores them).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nas.core.errors import InputError
from nas.core.files import sha256_path, write_bytes_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = "nas/verification/1"
FOLDER = "verification"
# Least PSNR of a float16 package computed in float32 against the untouched network: the requirement on this export.
MIN_PSNR_DB = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """What a component must compute.

    Attributes:
        packages: SHA-256 of its packages in call order (``nas.core.files.sha256_path``).
        inputs: Tensor by input name.
        trained: Torch's float32 outputs of the network as trained, by output name.
        stored: The same with weights rounded as stored; empty where that was not computed (compressed weights).
        inputs_text: What the inputs are, in words.
        min_psnr_db: Least PSNR against ``trained`` in float32; None where only ``stored`` decides.
    """

    packages: tuple[str, ...]
    inputs: Mapping[str, Tensor]
    trained: Mapping[str, Tensor]
    stored: Mapping[str, Tensor] = field(default_factory=dict)
    inputs_text: str = ""
    min_psnr_db: float | None = MIN_PSNR_DB


def reference_path(package: Path) -> Path:
    """Return where the reference of a package lies: ``verification/denoiser.safetensors`` beside it.

    The parts of a network in several packages (``denoiser_1of2.mlpackage``) share one.
    """
    component = package.stem.partition("_1of")[0].partition("_2of")[0]
    return package.parent / FOLDER / f"{component}.safetensors"


def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference, atomically.

    Raises:
        UnavailableError: The disk is full or cannot be written.
    """
    groups = {"input": reference.inputs, "trained": reference.trained, "stored": reference.stored}
    tensors = {f"{group}.{name}": item for group, items in groups.items() for name, item in items.items()}
    facts = {
        "schema": SCHEMA,
        "packages": json.dumps(reference.packages),
        "inputs": json.dumps(list(reference.inputs)),
        "inputs_text": reference.inputs_text,
        "min_psnr_db": json.dumps(reference.min_psnr_db),
    }
    write_bytes_atomically(path, save({name: item.detach().contiguous() for name, item in tensors.items()}, facts))


def read_reference(path: Path) -> Reference:
    """Read what ``write_reference`` wrote.

    Raises:
        InputError: The file is missing, damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: no readable reference: {error}", hint="export again") from error
    if facts.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {facts.get('schema')!r}, known is {SCHEMA!r}")
    try:
        order = json.loads(facts["inputs"])
        groups = {
            group: {name.partition(".")[2]: item for name, item in tensors.items() if name.startswith(f"{group}.")}
            for group in ("input", "trained", "stored")
        }
        return Reference(
            packages=tuple(json.loads(facts["packages"])),
            inputs={name: groups["input"][name] for name in order},
            trained=groups["trained"],
            stored=groups["stored"],
            inputs_text=facts["inputs_text"],
            min_psnr_db=json.loads(facts["min_psnr_db"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged: {error}", hint="export again") from error


def require_same_packages(reference: Reference, packages: Sequence[Path], *, where: Path) -> None:
    """Let packages pass only when the reference was made for them, byte for byte.

    Raises:
        InputError: A digest differs: the package or the reference was changed, or belongs elsewhere.
    """
    found = [sha256_path(path) for path in packages]
    for place, path in enumerate(packages):
        wanted = reference.packages[place] if place < len(reference.packages) else None
        if found[place] != wanted:
            raise InputError(
                f"{path}: SHA-256 {found[place][:16]}… is not the recorded {str(wanted)[:16]}… ({where})",
                hint="the package was changed or belongs to another export; name its network with --network, "
                "or export again",
            )
    if len(packages) != len(reference.packages):
        raise InputError(f"{where}: is of {len(reference.packages)} packages, given {len(packages)}")
