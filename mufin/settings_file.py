"""A file of settings: read within bounds of size and time, and converted to frozen dataclasses.

What a person may have written into it, or a program, ends in settings or in one sentence.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import shlex
import stat
import types
import typing
from collections.abc import Iterable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal

from mufin.errors import MufinError, escaped, shown

LARGEST = 2**20  # bytes of a file; params.yaml has about 20,000
MOST = 20_000  # YAML events, about as many values; ruamel reads some 70,000 per second
DEEPEST = 20  # levels of lists and sections
BOUND = 10**18  # of whole numbers: below 2^63, also with the number of a member added to a seed


class ParamsError(MufinError):
    """A setting is unknown, missing or out of range: which, its value, the remedy."""


def read_settings(path: Path, remedy: str = "") -> object:
    """What a file of YAML 1.2 or JSON says, unchecked; raises ParamsError where it cannot be read.

    `remedy` ends the sentence then; without it that is the command that writes params.yaml.

    YAML 1.2, because DVC writes `-S finetune.lr=1e-5` as `1e-05`, which is a text in YAML 1.1. JSON
    is read without a YAML library, which a GPU machine may lack. Anchors and tags are refused: no
    setting needs them, and a few lines with them stand for gigabytes.
    """
    path = Path(path)
    remedy = remedy or f"{written_by(path)} writes a new one"
    try:
        text = regular_bytes(path, LARGEST).decode("utf-8-sig")
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; {remedy.replace('a new one', 'one')}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        reason = f"{shown(error.object[error.start : error.start + 1])} in line {line} is not UTF-8"
        raise ParamsError(
            f"{path} cannot be read ({reason}); save it as UTF-8, or {remedy}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        raise ParamsError(f"{path} cannot be read: {reason}; move it away, then {remedy}") from None
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (ValueError, RecursionError):  # not JSON, or a number or a depth that Python refuses
        return _yaml(text, path, remedy)


def written_by(path: Path) -> str:
    """The command that writes a settings file, in backquotes."""
    place = f" --params {shlex.quote(str(path))}" if path != Path("params.yaml") else ""
    if len(place) > 100:
        place = " --params <that file>"
    force = "" if path.name == "params.yaml" else " --force"
    return f"`mufin use sample{place}{force}`"


def regular_bytes(path: Path, most: int) -> bytes:
    """The bytes of a regular file; raises OSError, also for a larger one and for what blocks.

    A folder, a pipe or a device is refused before anything is read from it.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise OSError(0, f"it is {kind}")
        with open(file, "rb", closefd=False) as stream:
            # No more than the file has, as `most` bytes are taken at once; /proc says 0 of all.
            content = stream.read(min(most, status.st_size + LARGEST) + 1) or b""
    finally:
        os.close(file)
    if len(content) > most:
        raise OSError(0, f"it has more than {most:,} bytes")
    return content


def _unique(pairs: list[tuple[str, object]], path: Path) -> dict[str, object]:
    out: dict[str, object] = {}
    for name, value in pairs:
        if name in out:
            raise ParamsError(f"{path} has {shown(name)} twice in one section; delete one of them")
        out[name] = value
    return out


def _yaml(text: str, path: Path, remedy: str) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        _check_events(YAML(typ="safe", pure=True).parse(text), path)
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path} line {mark.line + 1}" if mark else path
        # str(error) quotes the text of the file, over several lines
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise ParamsError(
            f"{where} is not YAML: {_cut(problem)}; correct it, or {remedy}"
        ) from None
    # A number of thousands of digits, the 30th of February, and ruamel's own slips.
    except (ValueError, ArithmeticError, LookupError) as error:
        long = "integer string conversion" in str(error)
        problem = "a number of thousands of digits" if long else _cut(str(error))
        raise ParamsError(
            f"{path} has what cannot be a setting: {problem}; correct it, or {remedy}"
        ) from None


def _check_events(events: Iterable, path: Path) -> None:
    """Raises ParamsError for YAML of another kind than settings are; stops reading there."""
    depth = documents = 0
    for number, event in enumerate(events):
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")  # stream and document: 2
        documents += kind == "DocumentStartEvent"
        reason = ""
        if kind == "AliasEvent" or getattr(event, "anchor", None):
            reason = "an anchor (& or *); write the value itself"
        elif getattr(event, "tag", None):
            reason = "a tag (!); write the value alone"
        elif kind == "DocumentStartEvent" and event.version not in (None, (1, 2)):
            reason = "a %YAML line of another version; delete it, settings are YAML 1.2"
        elif documents > 1:
            reason = "a second document (---); write all settings into the first"
        elif depth > DEEPEST + 2:
            reason = f"more than {DEEPEST} levels of lists and sections; settings have about five"
        elif number > MOST:
            reason = f"more than {MOST:,} values; settings have about two hundred"
        if reason:
            raise ParamsError(f"{path} line {event.start_mark.line + 1} has {reason}")


def _cut(text: str, most: int = 100) -> str:
    text = escaped(text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."


def build(kind: type, content: object, prefix: str = "") -> Any:
    """A dataclass from a mapping of the same names; unknown and missing names are errors."""
    if not isinstance(content, dict):
        name = prefix.rstrip(".")
        raise ParamsError(f"{name} is {shown(content)}; it must be a section of settings")
    hints = typing.get_type_hints(kind)
    for name in content:
        if name not in hints:
            raise ParamsError(_unknown(name, prefix, list(hints)))
    for name in hints:
        if name not in content:
            raise ParamsError(f"{prefix}{name} is missing; copy the line from params/sample.yaml")
    return kind(
        **{name: _convert(hint, content[name], prefix + name) for name, hint in hints.items()}
    )


def _unknown(name: object, prefix: str, known: list[str]) -> str:
    text = _cut(name, 80) if isinstance(name, str) else shown(name)
    if near := difflib.get_close_matches(text, known, 1, 0.5):
        return f"{prefix}{text} is not a parameter; did you mean {prefix}{near[0]}?"
    names = ", ".join(known)
    hint = f"are {names}" if len(names) < 120 else "stand in params/sample.yaml"
    return f"{prefix}{text} is not a parameter; the settings here {hint}"


def _convert(kind: Any, value: object, name: str) -> Any:
    """`value` as the annotated type; an int is accepted for a float, nothing else is converted."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return build(kind, value, name + ".")
    if origin is Literal:
        return _choice(args, value, name)
    if origin in (typing.Union, types.UnionType):
        return _of_union(args, value, name)
    if origin is list:
        if not isinstance(value, list):
            raise ParamsError(f"{name} is {shown(value)}; it must be a list")
        return [_convert(args[0], v, name) for v in value]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(_plain(value, name))
    wrong_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(value, kind) or wrong_bool:
        raise ParamsError(f"{name} is {shown(value)}; it must be {_noun(kind)}")
    return _plain(value, name)


def _choice(choices: tuple, value: object, name: str) -> Any:
    if value in choices and not isinstance(value, bool):
        return value
    text = value[:80] if isinstance(value, str) else ""
    near = difflib.get_close_matches(text, choices, 1, 0.4)
    raise ParamsError(
        f"{name} is {shown(value)}; it must be one of {', '.join(map(str, choices))}"
        + (f" (did you mean {near[0]}?)" if near else "")
    )


def _of_union(kinds: tuple, value: object, name: str) -> Any:
    """`value` as the one of the types that it has."""
    for kind in kinds:
        if typing.get_origin(kind) is Literal:
            fits = value in typing.get_args(kind)
        else:
            wanted = int | float if kind is float else typing.get_origin(kind) or kind
            fits = isinstance(value, wanted)
        if fits and not isinstance(value, bool):
            return _convert(kind, value, name)
    raise ParamsError(f"{name} is {shown(value)}; it must be {' or '.join(map(_noun, kinds))}")


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """`value` itself, if all of it can be written as JSON and used; else raises ParamsError."""
    rule = ""
    if isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, str):
        if "\0" in value or not _encodes(value):
            rule = "it must have neither NUL characters nor halves of surrogate pairs"
    elif isinstance(value, float):
        rule = "" if math.isfinite(value) else "it must be a finite number"
    elif isinstance(value, int):
        rule = "" if abs(value) < BOUND else "it must have at most 18 digits"
    elif depth > DEEPEST:
        rule = f"it must have at most {DEEPEST} levels"
    elif isinstance(value, list):
        for item in value:
            _plain(item, name, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ParamsError(f"{name} has the name {shown(key)}; it must be a text")
            _plain(key, name)
            _plain(item, f"{name}.{_cut(key, 40)}"[:100], depth + 1)
    else:
        rule = "it must be a text, a number, true, false, null, a list or a section"
    if rule:
        raise ParamsError(f"{name} is {shown(value)}; {rule}")
    return value


def _encodes(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _noun(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return str(typing.get_args(kind)[0])
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        dict: "a section",
        type(None): "null",
    }
    return names.get(kind, "a list")
