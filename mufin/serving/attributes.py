"""Columns of the labels that questions can ask for: `where` as a mask over labels."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from mufin.errors import shown
from mufin.ragged import Lists
from mufin.serving.query import QueryError, Scalar, Where

CATEGORY = "category"  # always a column, of all names in a product's category
BOUNDS = {"gte": np.greater_equal, "gt": np.greater, "lte": np.less_equal, "lt": np.less}
NUMBER, FLAG, TEXT = "number", "flag", "text"
LISTED = 200  # values of a text column that `facts` names, the most frequent first


class _Numbers:
    """A column of numbers or flags; NaN where a label has none."""

    def __init__(self, kind: str, values: np.ndarray):
        self.kind, self.values = kind, values  # (capacity,) float64

    def set(self, label: int, value: object) -> None:
        if label >= len(self.values):
            grown = np.full(max(2 * len(self.values), label + 1, 16), np.nan)
            grown[: len(self.values)] = self.values
            self.values = grown
        self.values[label] = np.nan if value is None else float(value)  # type: ignore[arg-type]

    def mask(self, condition: object, count: int, where: str) -> np.ndarray:
        values = np.full(count, np.nan)
        size = min(count, len(self.values))
        values[:size] = self.values[:size]
        if isinstance(condition, Mapping):
            return self._within(values, condition, where)
        wanted = condition if isinstance(condition, list) else [condition]
        for value in wanted:
            if kind_of(value) != self.kind:
                raise _wrong_kind(where, value, self.kind)
        return np.isin(values, np.array(wanted, np.float64))

    def _within(self, values: np.ndarray, bounds: Mapping, where: str) -> np.ndarray:
        if self.kind == FLAG:
            raise _wrong_kind(where, dict(bounds), FLAG)
        out = ~np.isnan(values)
        for name, bound in bounds.items():
            if name not in BOUNDS:
                known = ", ".join(BOUNDS)
                raise QueryError("where", f"{where} has the bound {shown(name)}; give {known}")
            if kind_of(bound) != NUMBER:
                raise QueryError("where", f"{where} {name} is {shown(bound)}; give a number")
            with np.errstate(invalid="ignore"):
                out &= BOUNDS[name](values, float(bound))
        return out

    def facts(self, alive: np.ndarray) -> dict:
        if self.kind == FLAG:
            return {"kind": FLAG}
        size = min(len(alive), len(self.values))
        values = self.values[:size][alive[:size]]
        values = values[~np.isnan(values)]
        if not len(values):
            return {"kind": NUMBER}
        return {"kind": NUMBER, "min": float(values.min()), "max": float(values.max())}


class _Texts:
    """A column of texts; a label may have several."""

    kind = TEXT

    def __init__(self, rows: list[list[str]] | Lists, names: list[str] | None = None):
        self.codes: dict[str, int] = {}
        if isinstance(rows, Lists):
            self.codes = {name: code for code, name in enumerate(names or [])}
            self.lists = rows
        else:
            coded = [[self._code(text) for text in row] for row in rows]
            self.lists = Lists.of_rows(coded, np.int64)
        self.row_of = self.lists.rows()
        self.own: dict[int, frozenset[int]] = {}  # labels that were added or changed

    def set(self, label: int, value: object) -> None:
        texts = [] if value is None else value if isinstance(value, list | tuple) else [value]
        self.own[label] = frozenset(self._code(str(text)) for text in texts)

    def mask(self, condition: object, count: int, where: str) -> np.ndarray:
        if isinstance(condition, Mapping):
            raise _wrong_kind(where, dict(condition), TEXT)
        wanted = condition if isinstance(condition, list) else [condition]
        for value in wanted:
            if not isinstance(value, str):
                raise _wrong_kind(where, value, TEXT)
        codes = {self.codes[text] for text in wanted if text in self.codes}
        out = np.zeros(count, bool)
        if codes:
            hit = np.isin(self.lists.values, np.array(sorted(codes)))
            out[self.row_of[hit]] = True
        for label, own in self.own.items():
            out[label] = bool(own & codes)
        return out

    def facts(self, alive: np.ndarray) -> dict:
        counts = np.zeros(len(self.codes), np.int64)
        kept = np.ones(len(self.lists), bool)
        kept &= alive[: len(kept)]
        kept[[label for label in self.own if label < len(kept)]] = False
        np.add.at(counts, self.lists.values[kept[self.row_of]], 1)
        for label, own in self.own.items():
            if alive[label]:
                counts[list(own)] += 1
        names = list(self.codes)
        order = np.argsort(-counts, kind="stable")[:LISTED]
        values = [names[code] for code in order if counts[code]]
        return {"kind": TEXT, "values": values, "more": int((counts > 0).sum()) > len(values)}

    def _code(self, text: str) -> int:
        return self.codes.setdefault(text, len(self.codes))


class _Column(Protocol):
    @property
    def kind(self) -> str: ...

    def set(self, label: int, value: object) -> None: ...
    def mask(self, condition: object, count: int, where: str) -> np.ndarray: ...
    def facts(self, alive: np.ndarray) -> dict: ...


class Attributes:
    """The category and the kept columns of all labels, by label id.

    `table` has a row per label of the index and a typed column per attribute; `categories` the
    category of each. Labels that are added later get ids above.
    """

    def __init__(self, table: pa.Table, categories: pa.ChunkedArray):
        self.columns: dict[str, _Column] = {CATEGORY: _texts(categories)}
        for name in table.column_names:
            if (column := _column(table[name])) is not None and name != CATEGORY:
                self.columns[name] = column

    def check(self, attributes: Mapping[str, Scalar]) -> None:
        """Raises QueryError if a value is of another kind than its column."""
        for name, value in attributes.items():
            if name == CATEGORY:
                text = f"attributes has {CATEGORY}; give it beside the attributes"
                raise QueryError("attributes", text)
            known = self.columns.get(name)
            if known is not None and known.kind != kind_of(value):
                text = f"attributes.{name} is {shown(value)}; {name} holds {_named(known.kind)}"
                raise QueryError("attributes", text)

    def set(self, label: int, attributes: Mapping[str, Scalar], category: tuple[str, ...]) -> None:
        """Gives a label these values in place of all that it had."""
        for name, value in attributes.items():
            if name not in self.columns:
                number = kind_of(value) != TEXT
                new = _Numbers(kind_of(value), np.zeros(0)) if number else _Texts([])
                self.columns[name] = new
        for name, column in self.columns.items():
            column.set(label, category if name == CATEGORY else attributes.get(name))

    def mask(self, where: Where, count: int) -> np.ndarray:
        """(count,) bool: the labels that meet all conditions; a missing value meets none.

        Raises QueryError for an unknown column, or a condition that does not fit its column.
        """
        out = np.ones(count, bool)
        for name, condition in where.items():
            if name not in self.columns:
                raise _unknown(name, list(self.columns))
            if condition == [] or condition == {}:
                raise QueryError("where", f"where.{name} is empty; give a value or bounds")
            out &= self.columns[name].mask(condition, count, f"where.{name}")
        return out

    def facts(self, alive: np.ndarray) -> dict[str, dict]:
        """For each column its kind, and the range or the values of the labels `alive`."""
        return {name: column.facts(alive) for name, column in self.columns.items()}


def kind_of(value: object) -> str:
    """number, flag or text; raises QueryError for what is none of them."""
    if isinstance(value, bool):
        return FLAG
    if isinstance(value, int | float):
        if not np.isfinite(float(value)):
            raise QueryError("where", f"a value is {shown(value)}; give a finite number")
        return NUMBER
    if isinstance(value, str):
        return TEXT
    raise QueryError("where", f"a value is {shown(value)}; give a text, a number, true or false")


def _column(column: pa.ChunkedArray) -> _Column | None:
    """The column of an attribute; None for a type that cannot be asked for."""
    kind = column.type
    if kinds.is_boolean(kind):
        values = column.cast(pa.int8()).to_numpy().astype(np.float64)
        return _Numbers(FLAG, values)
    if kinds.is_integer(kind) or kinds.is_floating(kind):
        return _Numbers(NUMBER, column.cast(pa.float64()).to_numpy().astype(np.float64))
    if kinds.is_string(kind) or kinds.is_large_string(kind) or _has_lists(kind):
        return _texts(column)
    return None


def _has_lists(kind: pa.DataType) -> bool:
    return kinds.is_list(kind) or kinds.is_large_list(kind)


def _texts(column: pa.ChunkedArray) -> _Texts:
    """A column of texts or of lists of texts, in which nulls are none."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if _has_lists(column.type):
        lengths = np.array(array.value_lengths().fill_null(0))
        flat, offsets = array.flatten(), np.concatenate([[0], np.cumsum(lengths)])
    else:
        flat = array.drop_null()
        offsets = np.concatenate([[0], np.cumsum(np.array(array.is_valid()), dtype=np.int64)])
    coded = flat.cast(pa.large_string()).fill_null("").dictionary_encode()
    codes = np.array(coded.indices, dtype=np.int64)
    return _Texts(Lists(offsets.astype(np.int64), codes), coded.dictionary.to_pylist())


def _unknown(name: str, known: list[str]) -> QueryError:
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known[:20])}"
    return QueryError("where", f"where.{shown(name)} is not a column of this model; {hint}")


def _wrong_kind(where: str, value: object, kind: str) -> QueryError:
    return QueryError("where", f"{where} is {shown(value)}; the column holds {_named(kind)}")


def _named(kind: str) -> str:
    return {NUMBER: "numbers", FLAG: "true and false", TEXT: "texts"}[kind]
