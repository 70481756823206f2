"""What a run goes on from: checkpoints of meta-training, and test tasks that were measured before an interruption.

A checkpoint is a line of text, a SHA-256 and the bytes of ``torch.save``. It is unpickled with ``weights_only=True``
and only after its hash was found right; the one before it is kept as ``checkpoint.prev.pt``. It says whose it is (see
:func:`ownership`), and no other run takes it.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.errors import UserError
from benchmark.files import parse_table, write_atomic
from benchmark.runs import schema_one
from benchmark.spec import RunSpec

TRAINS_AS = "0.1.0"
"""The first version of this suite whose training gives the same numbers as today's: raised when they change, so that no
run begins by one arithmetic and ends by another, and left alone by every other release."""

MAGIC = b"inner-optimizer-benchmark checkpoint 1\n"
FIELDS: dict[str, type | tuple[type, ...]] = {
    "iteration": int,
    "meta_parameters": dict,
    "meta_optimizer": dict,
    "losses": Tensor,
    "skipped": int,
    "validations": list,
    "best": (dict, type(None)),
    "best_iteration": int,
    "best_score": float,
    "train_s": float,
    "validate_s": float,
}
"""What :func:`benchmark.training_state.snapshot` saves."""

AFRESH = "delete the run's directory to start it afresh"


def write_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Save `payload` (tensors and plain values) with its SHA-256; the file it replaces stays as ``*.prev.pt``."""
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    body = buffer.getvalue()
    write_atomic(path, MAGIC + hashlib.sha256(body).digest() + body, keep=path.with_suffix(".prev.pt"))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The payload of one file. Raises :class:`UserError` when the file is not exactly what was written."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    head, body = data[: len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    if not head.startswith(MAGIC):
        raise UserError(f"{path}: not a checkpoint of this benchmark, or of another version of its format")
    if hashlib.sha256(body).digest() != head[len(MAGIC) :]:
        raise UserError(f"{path}: damaged (its SHA-256 does not match)")
    try:
        payload = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path}: refused, holds more than tensors and plain values") from error
    if not isinstance(payload, dict):
        raise UserError(f"{path}: refused, expected a table, found {type(payload).__name__}")
    return payload


def read_latest_checkpoint(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The newest whole checkpoint at `path`, or None where there is none yet; and a remark, empty if all is well.

    Raises :class:`UserError` if checkpoints exist and every one of them is bad: never a silent fresh start.
    """
    candidates = [each for each in (path, path.with_suffix(".prev.pt")) if each.exists()]
    remarks = []
    for candidate in candidates:
        try:
            payload = read_checkpoint(candidate)
        except UserError as error:
            remarks.append(str(error))
        else:
            return payload, f"{remarks[0]}; going on from the one before" if remarks else ""
    if candidates:
        raise UserError(f"{'; '.join(remarks)}; {AFRESH}")
    return None, ""


def ownership(spec: RunSpec, dataset_hash: str) -> dict[str, str]:
    """Whose a checkpoint is: what must agree for training to go on from it, each field by a name of its own."""
    return {
        "method": spec.method,
        "spec": spec.training_digest(),
        "data": dataset_hash,
        "version": TRAINS_AS,
    }


def require_ownership(payload: dict[str, Any], spec: RunSpec, owner: dict[str, str], path: Path) -> None:
    """:class:`UserError`, naming the first field that is not `owner`'s or not of its kind, unless all are.

    `owner` is the :func:`ownership` of `spec`, which a checkpoint of schema 1 names by its former digest.
    """
    found = payload.get("owner")
    found = found if isinstance(found, dict) else {}
    former = {"spec": schema_one.training_digest(spec)}
    for key, value in owner.items():
        if found.get(key) not in (value, former.get(key, value)):
            raise UserError(f"{path}: belongs to another run ({key} is {found.get(key)!r}, not {value!r}); {AFRESH}")
    for key, kind in FIELDS.items():
        if not isinstance(payload.get(key), kind):
            raise UserError(f"{path}: {key} of this checkpoint is {type(payload.get(key)).__name__}; {AFRESH}")
    at, best, losses = payload["iteration"], payload["best_iteration"], payload["losses"].numel()
    if not 0 <= best <= at <= spec.iterations or losses != at:
        raise UserError(
            f"{path}: no run of {spec.iterations:,} iterations stands at iteration {at:,} with {losses:,} losses and "
            f"its best at {best:,}; {AFRESH}"
        )


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# Test tasks measured so far


def write_partial(path: Path, key: str, table: pd.DataFrame) -> None:
    """Keep the rows measured so far; `key` says by which meta-parameters, of which spec, on which data."""
    body = table.to_csv(index=False).encode()
    write_atomic(path, f"# {key} {hashlib.sha256(body).hexdigest()}\n".encode() + body)


def partial_keys(spec: RunSpec, rest: str) -> list[str]:
    """The key under which rows of `spec` are kept, and the one under which schema 1 kept them, where it did."""
    return [f"{digest} {rest}" for digest in (spec.digest(), schema_one.digest(spec)) if digest]


def read_partial(path: Path, *keys: str) -> pd.DataFrame | None:
    """The rows that :func:`write_partial` kept under one of `keys`; None where there are none or they are damaged.

    Nothing is lost by None but time: the tasks are measured again.
    """
    try:
        head, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if head not in [f"# {key} {hashlib.sha256(body).hexdigest()}".encode() for key in keys]:
        return None
    table = parse_table(body)
    return table.astype({name: np.float32 for name in table.columns if name != "task"})  # as :func:`measure` gives them
