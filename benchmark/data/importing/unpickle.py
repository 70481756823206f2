"""Pickles without trust: plain containers, numbers, strings and numpy arrays of them, nothing else.

A pickle is a program; loading one from a stranger runs it. The field's data sets come as pickles all the same, so this
unpickler knows no callable but its own stand-ins for the few that numpy arrays are made of. They check what they are
given (dtype of plain numbers or strings, a buffer of exactly the right length) before numpy sees it; every other name
is refused.
"""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from typing import IO, Any

import numpy as np

from benchmark.errors import UserError


class _Dtype:
    """Stands for ``numpy.dtype`` while loading: booleans, integers, floats and strings only."""

    def __init__(self, name: Any, *_: Any) -> None:
        name = name.decode() if isinstance(name, bytes) else name
        dtype = np.dtype(name) if isinstance(name, str) else None
        if dtype is None or dtype.kind not in "biufSU":
            raise pickle.UnpicklingError(f"numpy dtype {name!r} is not of plain numbers or strings")
        self.dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(state[2:5]):  # subarray, names, fields
            raise pickle.UnpicklingError("numpy dtype with fields")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder("<" if order == "<" else ">")


class _Array:
    """Stands for ``numpy.ndarray`` while loading; ``array`` is the checked result."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _checked(data, dtype, shape, "F" if fortran else "C")


def _checked(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if isinstance(data, str):  # a Python 2 string
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("numpy array of objects")
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise pickle.UnpicklingError(f"numpy array of shape {shape!r}")
    size = dtype.dtype.itemsize
    for n in shape:
        size *= n
    if size != len(data) or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"numpy array of shape {shape} with {len(data)} bytes")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)  # type: ignore[call-overload, no-any-return]


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, data: Any) -> Any:
    return _checked(data, dtype, (), "C")[()]


def _bytes(data: Any = b"") -> bytes:
    """How protocol 2 writes no bytes at all."""
    if data != b"":
        raise pickle.UnpicklingError("unexpected use of bytes")
    return b""


def _bytearray(data: Any = b"") -> bytearray:
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("unexpected use of bytearray")
    return bytearray(data)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 2 protocols write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("unexpected use of _codecs.encode")
    return codecs.encode(text, "latin1")  # type: ignore[return-value]


_KNOWN: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _checked for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytes"): _bytes,
    ("builtins", "bytearray"): _bytearray,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((module.replace("__builtin__", "builtins"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return found

    def persistent_load(self, _: Any) -> Any:
        raise pickle.UnpicklingError("it asks for an object stored elsewhere")


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The stand-ins replaced by what they stand for; byte keys (Python 2) become strings.

    ``done`` keeps what is met many times one object: a small pickle of lists in lists must not grow.
    """
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Array):
        if not hasattr(value, "array"):
            raise pickle.UnpicklingError("numpy array without content")
        return value.array
    if isinstance(value, _Dtype):
        return value.dtype
    if isinstance(value, dict):
        table: dict[Any, Any] = {}
        done[id(value)] = table
        table.update({(k.decode("latin1") if isinstance(k, bytes) else k): _plain(v, done) for k, v in value.items()})
        return table
    if isinstance(value, list):
        done[id(value)] = value
        value[:] = [_plain(v, done) for v in value]
    elif isinstance(value, tuple):
        done[id(value)] = plain = tuple(_plain(v, done) for v in value)
        return plain
    return value


def load(file: IO[bytes], name: str) -> Any:
    """The content of a pickle; :class:`UserError` where it is damaged or holds anything but plain data.

    Text of Python 2 is read as latin-1, keys that are bytes become strings.
    """
    try:
        content = _Unpickler(file, encoding="latin1").load()
        return _plain(content, {})
    except (MemoryError, RecursionError) as error:
        raise UserError(f"{name} asks for more memory than there is; it was not loaded") from error
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{name} was not loaded: only plain data and numpy arrays are admitted, but {error}") from error
