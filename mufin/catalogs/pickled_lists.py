"""Arrays of objects that NumPy saved: read as lists of numbers and texts, without running code.

NumPy pickles such arrays, and a pickle can run any program. Here the names in it stand for the
classes of this file, whatever they are, and only those opcodes are known that NumPy writes.
"""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mufin.errors import MufinError, shown

MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
OPCODES = (
    "PROTO FRAME STOP MARK POP POP_MARK GLOBAL STACK_GLOBAL REDUCE BUILD "
    "MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET "
    "NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS"
).split()
CODES = {code.code.encode("latin-1")[0] for code in pickletools.opcodes if code.name in OPCODES}


class _Type:
    """Stands for numpy.dtype: `O8`, `i8` and the like."""

    def __init__(self, code: str = "", *_: object):
        self.code = code

    def __setstate__(self, state: Any) -> None:
        self.code = (state[1] if state[1] in ("<", ">") else "") + self.code

    def numbers(self, content: bytes) -> list:
        """The numbers in these bytes; raises ValueError for other types than numbers."""
        kind = np.dtype(self.code)
        if kind.kind not in "iuf":
            raise ValueError(f"values of {self.code}")
        return np.frombuffer(content, kind).tolist()


class _Array:
    """Stands for an array: its values in one flat list."""

    def __init__(self, *_: object):
        self.values: list = []

    def __setstate__(self, state: Any) -> None:
        _, _, kind, _, content = state
        self.values = content if isinstance(content, list) else kind.numbers(content)


class _Scalar:
    """Stands for a number of NumPy."""

    def __init__(self, kind: _Type, content: bytes):
        (self.value,) = kind.numbers(content)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a number with a state")


class _Class:
    """Stands for numpy.ndarray, which is only named."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("a class with a state")


NAMES = {"dtype": _Type, "_reconstruct": _Array, "scalar": _Scalar, "ndarray": _Class}


# The one in C reserves as much memory as a place in its memo asks for
class _Reader(pickle._Unpickler):
    dispatch = {code: f for code, f in pickle._Unpickler.dispatch.items() if code in CODES}

    def find_class(self, module: str, name: str) -> type:
        if module not in MODULES or name not in NAMES:
            raise ValueError(f"{module}.{name}"[:100])
        return NAMES[name]


def pickled_list(file: BinaryIO, path: Path) -> list:
    """The values of an array of objects, from the place in `file` after its header.

    They are numbers, texts, None, or lists of these, as of the arrays that NumPy has there. Raises
    MufinError, which names `path`, for anything else.
    """
    try:
        array = _Reader(file).load()
        if not isinstance(array, _Array):
            raise ValueError(f"{type(array).__name__.strip('_')} in place of an array")
        return [_plain(value) for value in array.values]
    except Exception as error:  # a pickle can fail in a dozen ways
        why = shown(str(error) or type(error).__name__)
        raise MufinError(
            f"{path} is an array of objects that are not lists of row numbers or ids ({why}); save "
            "it as JSON: an object of id: row or rows"
        ) from None


def _plain(value: object) -> object:
    """A value of the array without the classes of this file."""
    if isinstance(value, _Array):
        value = value.values
    if isinstance(value, list):
        return [_number(item) for item in value]
    if value is None or value != value or isinstance(value, str):
        return value if isinstance(value, str) else None
    return _number(value)


def _number(value: object) -> int:
    if isinstance(value, _Scalar):
        value = value.value
    if type(value) is not int:  # `type`, because True is an int too
        raise ValueError(shown(value))
    return value
