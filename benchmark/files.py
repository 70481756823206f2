"""Files that are written whole or not at all, and read with one clear error for whatever is wrong with them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PART = ".part"
"""Ends the name of a file that is being written."""


def write_atomic(path: Path, data: bytes, *, keep: Path | None = None) -> None:
    """Replace `path` by `data`: a reader, or a crash, sees the old file or the new one, never a torn one.

    The old file stays as `keep` where that is given. :class:`UserError` where the new one cannot be written: the old
    one is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is kept"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=False) + "\n").encode())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def parse_table(data: bytes) -> pd.DataFrame:
    """A CSV with every float exactly as it was written."""
    import pandas as pd

    # pandas 3 does so by itself, and warns when asked to
    how: dict[str, Any] = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
    return pd.read_csv(io.BytesIO(data), **how)


def read_table(path: Path, columns: tuple[str, ...], sha256: str | None) -> pd.DataFrame | None:
    """A CSV of numbers that has `columns`, and this hash where one is given; None where no file is, nor expected."""
    import pandas as pd

    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        if sha256 is None:
            return None
        raise UserError(f"{path}: is missing") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path}: damaged or edited (its SHA-256 does not match status.json)")
    try:
        table = parse_table(data)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: not a readable table ({str(error).splitlines()[0]})") from error
    if not isinstance(table.index, pd.RangeIndex):  # a row longer than the header
        raise UserError(f"{path}: not a readable table (rows differ in length)")
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"{path}: has no column {', '.join(missing)}")
    words = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name]) and len(table)]
    if words:
        raise UserError(f"{path}: column {words[0]} must be numbers")
    return table
