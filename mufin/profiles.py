"""Profiles (params/*.yaml) and params.yaml, which `mufin use <profile>` writes from one of them.

A profile names only the settings in which it differs from the default one. params.yaml has all of
them, each with its meaning from `mufin.params` as a comment.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from mufin.errors import shown
from mufin.params import Params, ParamsError, meanings, params_of, sections
from mufin.settings_file import read_settings

FOLDER = Path(__file__).resolve().parents[1] / "params"
DEFAULT = "sample"  # the profile that has all settings
WIDTH = 100  # columns
COMMENTS = 32  # the column of the comments beside values

HEAD = """\
Settings of the pipeline, written by `mufin use {name}`.
Edit the values; `dvc repro` runs the stages that a change affects. Settings of a machine (device,
threads, scratch folder) are environment variables: see docs/gpu.md.

{profile}
Terms of MUFIN (Mittal et al., CVPR 2022; sections, tables and figures named below are its own):
  datapoint   a product that is asked about
  label       a product that may be an answer
  bag         the descriptors of a product: the vectors of its title and of its images
  E_V, E_T    encoders of images and titles, the same for datapoints and labels
  A_S, A_C    attention within a bag, and from a datapoint's bag to a label's
  x, z        vector of a datapoint, vector of a label; their similarity is the cosine of the two
  w           classifier of a label, alpha * z + (1 - alpha) * eta; its cosine with x is the score
  eta, alpha  per label, learnt: a free vector, and the weight of z beside it
A comment has the meaning or the choices, then the range ([0, 1) is 0 <= value < 1), then the
value in the paper or in its authors' released code."""

WRITTEN_BY = re.compile(r"# Settings of the pipeline, written by `mufin use ([\w.-]+)`")
CHOICES = " | "  # between the choices that a meaning lists
# A line of a comment never ends between these and what they belong to
TOGETHER = re.compile(r"(>=|<=|paper|code|Table|Fig\.|Sec\.|App\.) (?=[\w\[])")
# Texts that need no quotes, except WORDS
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./()-]+)*")
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}  # no texts in YAML 1.1


def profile_names(folder: Path = FOLDER) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_profile(name: str, folder: Path = FOLDER) -> Params:
    """All settings of a profile, those of the default one included, checked; raises ParamsError."""
    path = folder / f"{name}.yaml"
    default, changes = _read(folder / f"{DEFAULT}.yaml"), _read(path)
    try:
        return params_of(completed(default, changes))
    except ParamsError as error:
        raise ParamsError(f"in {path}: {error}") from None


def _read(path: Path) -> dict:
    content = read_settings(path, f"`git checkout {path}` restores it")
    if not isinstance(content, dict | None):
        raise ParamsError(f"{path} is {shown(content)}; it must be sections of settings")
    return content or {}  # null: comments alone


def completed(default: dict, changes: dict, kind: type = Params) -> dict:
    """`changes` over `default`, section by section; a list, or an encoder's options, as a whole."""
    out, parts = dict(default), sections(kind)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = completed(out[name], value, parts[name]) if name in parts and both else value
    return out


def text_of_profile(name: str, folder: Path = FOLDER, settings: Params | None = None) -> str:
    """The params.yaml of a profile, headed by the comment that heads the profile.

    `settings` take the place of the profile's own, where a user keeps some.
    """
    lines = (folder / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    header = [line[2:].rstrip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    own = "\n".join([f"Profile {name}", *(f"  {line}".rstrip() for line in header), ""])
    settings = settings or read_profile(name, folder)
    return text_of(settings, HEAD.format(name=name, profile=own))


def origin(text: str) -> str:
    """The profile that a params.yaml was written from, by its head; '' where that is not said."""
    found = WRITTEN_BY.match(text)
    return found[1] if found else ""


def text_of(params: Params, head: str = "") -> str:
    """`params` as the text of params.yaml, with comments; `head` becomes its first comment.

    YAML 1.1 and 1.2 read the same from it, and DVC's `-S` changes nothing but the value it sets.
    """
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    return "\n".join([*lines, *_lines(params, 0)]).lstrip("\n") + "\n"


def settings_of(settings: Any, prefix: str = "") -> dict[str, object]:
    """{dotted name: value} of all settings of a section, in the order of params.yaml."""
    out: dict[str, object] = {}
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{prefix}{field.name}"
        out |= settings_of(value, f"{name}.") if is_dataclass(value) else {name: value}
    return out


def scalar(value: object) -> str:
    """A value as YAML on one line; raises ParamsError for what is neither JSON nor finite."""
    if isinstance(value, list):
        return f"[{', '.join(map(scalar, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(k)}: {scalar(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and math.isfinite(value):
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))  # 1e-05 is a text in YAML 1.1
    if value is None or isinstance(value, int):
        return json.dumps(value)
    raise ParamsError(f"{shown(value)} cannot be a setting; use texts, numbers, lists and sections")


def _text(value: str) -> str:
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    if not value:
        return "''"  # as DVC writes it
    escaped = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escaped.get(c) or _printable(c) for c in value) + '"'


def _printable(character: str) -> str:
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _lines(settings: Any, depth: int) -> Iterator[str]:
    """The lines of a section, and of those in it."""
    said = meanings(type(settings))
    for field in fields(settings):
        value, key = getattr(settings, field.name), f"{'  ' * depth}{field.name}:"
        if not is_dataclass(value):
            yield from _setting(key, value, said[field.name])
        elif depth:
            yield from _commented(key, said[field.name])
            yield from _lines(value, depth + 1)
        else:
            yield from ("", *_comment(said[field.name], ""), key)
            yield from _lines(value, depth + 1)


def _setting(key: str, value: object, meaning: str) -> Iterator[str]:
    """A value and its comment. An encoder's options stand one per line: DVC wraps long lines."""
    if not (isinstance(value, dict) and value):
        yield from _commented(f"{key} {scalar(value)}", meaning)
        return
    yield from _commented(key, meaning)
    indent = " " * (len(key) - len(key.lstrip()) + 2)
    yield from (f"{indent}{scalar(name)}: {scalar(option)}" for name, option in value.items())


def _commented(line: str, meaning: str) -> Iterator[str]:
    """The line with its comment beside it, or above it where the line is too long."""
    if len(line) > COMMENTS - 2:
        yield from (*_comment(meaning, " " * (len(line) - len(line.lstrip()))), line)
        return
    first, *others = _comment(meaning, " " * COMMENTS)
    yield line.ljust(COMMENTS) + first.lstrip()
    yield from others


def _comment(meaning: str, indent: str) -> list[str]:
    """The meaning on one line if it fits, else with a line for each of its choices, wrapped."""
    whole = f"{indent}# {meaning}"
    if len(whole) <= WIDTH:
        return [whole]
    choices = TOGETHER.sub("\\1\N{NO-BREAK SPACE}", meaning).split(CHOICES)
    wrapper = textwrap.TextWrapper(
        width=WIDTH - len(indent) - 2,
        subsequent_indent="  " if len(choices) > 1 else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = (line for choice in choices for line in wrapper.wrap(choice))
    return [f"{indent}# {line}".replace("\N{NO-BREAK SPACE}", " ") for line in lines]
