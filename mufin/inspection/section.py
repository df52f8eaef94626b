"""The settings that were found as text: the section `download` alone, or put into params.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mufin.artifacts.publication import publish
from mufin.catalog_params import Download
from mufin.errors import MufinError
from mufin.outputs import back_up, checked_target
from mufin.params import Params, load_params
from mufin.profiles import scalar, settings_of, text_of

COLUMN = 32  # of the comments beside values, as `mufin use` writes them


def printed(s: Download, base: Download) -> Iterator[str]:
    """The lines of the section, those settings alone that say where the data is."""
    now, before = settings_of(s), settings_of(base)
    sections: list[str] = []
    yield "download:"
    for name, value in now.items():
        *inside, key = name.split(".")
        about_data = name in ("source", "location") or (inside == ["columns"])
        if s.source != "catalog" and inside == ["columns"]:
            continue
        if not about_data and value == before[name]:
            continue
        if inside and inside != sections:
            yield f"  {'.'.join(inside)}:"
            sections = inside
        yield f"  {'  ' * len(inside)}{key}: {scalar(value)}"


def write(path: Path, s: Download, split: str | None) -> Iterator[str]:
    """Puts the section, and curate.split unless it is None, into a settings file.

    All else in the file stays, byte for byte; a copy of it as it was is kept beside it. Raises
    MufinError, before anything is written, if the file is not valid.
    """
    target = checked_target(path, lambda _: True, "a settings file of the pipeline")
    before = load_params(path)  # where it is not valid, this says why
    text = target.read_bytes().decode("utf-8-sig")
    after = replace(before, download=s)
    if split:
        curate = replace(before.curate, split=split)  # type: ignore[arg-type]
        after = replace(after, curate=curate)
    if after == before:
        yield f"{path} has these settings already"
        return
    changed = with_settings(text, before, after)
    backup = back_up(target)
    with publish(target) as scratch:
        scratch.write_text(changed, encoding="utf-8")
    old, new = settings_of(before), settings_of(after)
    yield f"{path} now has:"
    for name in new:
        if new[name] != old[name]:
            yield f"  {name}: {scalar(new[name])}"
    yield f"The settings before are in {backup}"


def with_settings(text: str, before: Params, after: Params) -> str:
    """The text of a settings file, which says `before`, so that it says `after`.

    A section without comments of the user's own is written as `mufin use` does; in others, only the
    values change. Raises MufinError if the text is not written as a settings file is.
    """
    if text.lstrip().startswith("{"):
        return _json(text, before, after)
    own = text_of(before)
    for name in ("download", "curate"):
        part, theirs = _section(text, name), _section(own, name)
        if part is not None and part == theirs:
            ours = _section(text_of(after), name)
            assert ours is not None
            text = text.replace(part, ours, 1)
        else:
            text = _with_values(text, settings_of(before), settings_of(after), name)
    return text


def _json(text: str, before: Params, after: Params) -> str:
    content: dict[str, Any] = json.loads(text)
    old, new = settings_of(before), settings_of(after)
    for name, value in new.items():
        if value != old[name]:
            *inside, key = name.split(".")
            section = content
            for part in inside:
                section = section[part]
            section[key] = value
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _section(text: str, name: str) -> str | None:
    """The lines of a section from its name to the last one that is indented, or None."""
    found = re.search(rf"^{name}:[^\n]*\n(?:(?:[ \t]+[^\n]*)?\n)*", text, re.M)
    return found[0].rstrip("\n") + "\n" if found else None


def _with_values(text: str, old: dict, new: dict, section: str) -> str:
    """The text with those values changed that differ, each where it stands."""
    from ruamel.yaml import YAML

    changes = {n: v for n, v in new.items() if v != old[n] and n.startswith(f"{section}.")}
    places: list[tuple[int, int, str]] = []
    if changes:
        root = YAML(pure=True).compose(text)
        for name, value in changes.items():
            node = _node(root, name.split("."))
            if node is None:
                raise MufinError(f"{name} is not written as a setting; run `mufin use` first")
            places.append((node.start_mark.index, _end(node), scalar(value)))
    for start, end, value in sorted(places, reverse=True):
        text = _replaced(text, start, end, value)
    return text


def _node(node: Any, names: list[str]) -> Any:
    """The YAML node of a setting, None if there is none."""
    for name in names:
        pairs = getattr(node, "value", None)
        pairs = pairs if isinstance(pairs, list) else []
        node = next((v for k, v in pairs if getattr(k, "value", None) == name), None)
        if node is None:
            return None
    return node


def _end(node: Any) -> int:
    """Where the text of a value ends; of a block of lines, at the end of its last value."""
    if isinstance(node.value, list) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return node.end_mark.index


def _replaced(text: str, start: int, end: int, value: str) -> str:
    """The text with `value` from start to end; a comment behind it stays in its column."""
    old, rest = text[start:end], text[end:]
    line = text.rfind("\n", 0, start) + 1
    if text[start - 1] == ":":  # a null of no characters stands right behind the colon
        value = f" {value}"
    if "\n" in old or not text[line:start].strip(" -"):  # a block: the value goes behind the name
        start = text.rindex(":", 0, start) + 1
        return f"{text[:start]} {value}{rest}"
    if comment := re.match(r" +(?=#)", rest):
        column = end - line + len(comment[0])
        gap = max(column - (start - line + len(value)), 2)
        rest = " " * gap + rest[len(comment[0]) :]
    return text[:start] + value + rest
