"""Files that are written whole or not at all, locks, and reading with one clear error for whatever is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmark.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PART = ".part"
"""Ends the name of a file that is being written."""


def write_atomic(path: Path, data: bytes, *, keep: Path | None = None) -> None:
    """Replace `path` by `data`, see :func:`replacing`."""
    with replacing(path, keep=keep) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """A file to write that becomes `path` when the block ends well: a reader, or a crash, never sees a torn one.

    The old file stays as `keep` where that is given. :class:`UserError` where the new one cannot be written: the old
    one is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        settle(temporary, path, keep=keep)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is kept"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def require_writable(path: Path) -> None:
    """:class:`UserError` now if :func:`replacing` could not write `path` later; missing folders are made."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder, and no file can be written there; name a file")
    trial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error


def settle(written: Path, path: Path, *, keep: Path | None = None) -> None:
    """Give the finished file `written` its name `path`, once it is on the disk."""
    with open(written, "rb+") as file:
        os.fsync(file.fileno())
    if keep is not None and path.exists():
        os.replace(path, keep)
    os.replace(written, path)


def acquire(file: IO[str], *, wait: bool = False, shared: bool = False) -> bool:
    """Take the advisory lock of an open `file`, held until it is closed; False if another process has it.

    `wait`: until it is free. `shared`: with all others that only look, and with none that has it for itself. Where the
    platform has no such locks nobody is kept out, and every file stays whole still.
    """
    try:
        import fcntl
    except ImportError:  # pragma: no cover
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(folder: Path, *, kind: str = "folder", advice: str = "choose another one") -> Iterator[None]:
    """Hold `folder`, made where it is not, against other processes; what it is, and what to do if it cannot be held."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "a")  # noqa: SIM115  stays on disk: unlinking a held lock admits two
    except OSError as error:
        raise UserError(f"cannot write to the {kind} {folder} ({error.strerror}); {advice}") from error
    with lock:
        acquire(lock, wait=True)
        yield


def merge_rows(
    path: Path,
    fresh: pd.DataFrame,
    key: Sequence[str],
    *,
    absent: Mapping[str, str] | None = None,
    float_format: str | None = None,
) -> pd.DataFrame:
    """Put `fresh` into the CSV at `path` in place of the rows with the same `key`; the table that is there now.

    All other rows stay as they were written, those of another process that does the same at this moment included.
    `absent`: what a column of the key is taken for in a file from before it was there.
    """
    import pandas as pd

    rows = _texts(fresh.to_csv(index=False, float_format=float_format).encode())
    with locked(path.parent):
        old = keyed_rows(path, key, absent)
        if old is not None:
            named = set(zip(*(rows[name] for name in key), strict=True))
            stay = [each not in named for each in zip(*(old[name] for name in key), strict=True)]
            rows = pd.concat([old[stay], rows], ignore_index=True).fillna("")
        data = rows.to_csv(index=False).encode()
        write_atomic(path, data)
    return parse_table(data)


def keyed_rows(path: Path, key: Sequence[str], absent: Mapping[str, str] | None = None) -> pd.DataFrame | None:
    """The CSV that :func:`merge_rows` adds to, every entry as its text; None where there is none."""
    import pandas as pd

    try:
        rows = _texts(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable table ({str(error).splitlines()[0]}); move it away") from error
    if not isinstance(rows.index, pd.RangeIndex):  # a row longer than the header
        raise UserError(f"{path}: not a readable table (rows differ in length); move it away")
    rows = rows.assign(**{name: value for name, value in (absent or {}).items() if name not in rows})
    missing = [name for name in key if name not in rows]
    if missing:
        raise UserError(f"{path}: has no column {', '.join(missing)}; move it away")
    return rows


def _texts(data: bytes) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with an apostrophe before every text that a spreadsheet would take for a formula (``=``, +, -, @)."""
    import pandas as pd

    words = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(_no_formula) for name in words})


def _no_formula(entry: Any) -> Any:
    if not isinstance(entry, str) or not entry.startswith(("=", "+", "-", "@", "\t", "\r")):
        return entry
    with contextlib.suppress(ValueError):
        float(entry)  # a signed number computes nothing
        return entry
    return f"'{entry}"


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=False) + "\n").encode())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_toml(path: Path) -> dict[str, Any]:
    """The document; :class:`UserError` if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML ({str(error).splitlines()[0]})") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable, or move it away") from error
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
