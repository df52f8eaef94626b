"""`mufin use`: params.yaml gets the settings of a profile, and what is the user's own stays.

The user's own are the section `download`, and the encoder of images or titles, where they differ
from the profile that params.yaml was written from.
"""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mufin import profiles
from mufin.artifacts.publication import publish
from mufin.errors import MufinError, sentence, shown
from mufin.outputs import back_up, checked_target
from mufin.params import (
    Download,
    ImageEncoderParams,
    Params,
    ParamsError,
    TextEncoderParams,
    params_of,
    sections,
)
from mufin.settings_file import LARGEST, build, read_settings

ENCODER = ("kind", "name", "weights")  # the settings that say which encoder it is
# What else belongs to an encoder, and how much of it trains: a choice of the profile, as long as
# its encoder is of the same kind
BELONGS = {"image": ("options", "size"), "text": ("options", "vocabulary", "max_tokens")}
TRAINABLE = {"image": "trainable_blocks", "text": "trainable_layers"}
WIDEST = 120  # characters of a value that is printed
ENOUGH = 3  # sections of the same names: a file that has so many is one of settings


@dataclass(frozen=True, slots=True)
class Before:
    """What a settings file holds before it is replaced."""

    head: str  # its first characters
    content: object  # None where it cannot be read
    settings: Params | None  # None where it is not valid
    problem: str  # why it is not; '' also for a file that is missing or empty

    @classmethod
    def of(cls, path: Path) -> Before:
        if not path.exists() or not path.stat().st_size:
            return cls("", None, None, "")
        head, content = _head(path), None
        try:
            content = read_settings(path)
            return cls(head, content, params_of(content, str(path)), "")
        except ParamsError as error:
            return cls(head, content, None, str(error))


def use(profile: str, target: Path, everything: bool, force: bool) -> Iterator[str]:
    """Writes a profile to `target`; yields lines that say what changed, stayed and was backed up.

    With `everything` the user's own download section and encoders are replaced too, with `force` a
    file that does not look like settings. Raises MufinError before anything is written.
    """
    own = _profile(profile)
    path = _target(target, is_settings, "a settings file of the pipeline", force)
    variants = _variants(profile, path.parent / "compare/variants.yaml")
    before = Before.of(path)
    settings = own
    if not everything:
        settings = with_users_own(own, before.content, profile, _origin(before.head))
    text = profiles.text_of_profile(profile, settings=settings).encode()

    backup = _write(path, text, _profile_texts)
    last = [_use_variants(variants, profile)] if variants else []
    yield f"{target} now has the settings of {profile}{_changes(before.settings, settings)}"
    if before.problem:
        yield f"The settings before were not valid: {sentence(before.problem)}"
    yield from _kept(profile, own, settings)
    if backup:
        yield f"The settings before are in {backup}"
    yield from last
    if missing := _missing_catalog(settings, path.parent):
        yield (
            f"There is no file {missing} yet: set download.location to your catalog first, or let "
            "`mufin inspect FILES --write params.yaml` set it"
        )
    yield "`dvc repro` runs the stages that a changed setting affects"


def is_settings(path: Path) -> bool:
    """Whether `mufin use` may replace the file: params.yaml, or what looks like it."""
    if path.name == "params.yaml" or profiles.origin(_head(path)):
        return True
    try:
        content = read_settings(path)
    except ParamsError:
        return False
    names = set(content) if isinstance(content, dict) else set()
    return len(names & set(sections(Params))) >= ENOUGH


def with_users_own(own: Params, content: object, profile: str, origin: Params) -> Params:
    """The settings `own` of a profile, with those parts of `content` that are the user's own.

    These are the parts that differ from `origin`, the profile that the file was written from. A
    part that is not valid is left out. Raises MufinError if they do not fit to the profile.
    """
    download = _section(Download, content, "download")
    if not download or download == origin.download:
        download = own.download
    encoders = _section_of(content, "encoder")
    try:
        parts = {
            name: _encoder(kind, _section(kind, encoders, name), name, own, origin)
            for name, kind in (("image", ImageEncoderParams), ("text", TextEncoderParams))
        }
        encoder = replace(own.encoder, **parts)
        return replace(own, download=download, encoder=encoder)  # at once: each needs the other
    except ParamsError as error:
        raise MufinError(
            f"your encoders do not fit to {profile}: {error}; `mufin use {profile} --all` takes "
            "the profile's own"
        ) from None


def _encoder(kind: type, user: Any, name: str, own: Params, origin: Params) -> Any:
    """An encoder section of the profile, or with the user's encoder in it."""
    ours, before = getattr(own.encoder, name), getattr(origin.encoder, name)
    if user is None or all(getattr(user, n) == getattr(before, n) for n in ENCODER):
        return ours
    names = (*ENCODER, *BELONGS[name], *([TRAINABLE[name]] if user.kind != ours.kind else []))
    return replace(ours, **{n: getattr(user, n) for n in names})


def _section(kind: type, content: object, name: str) -> Any:
    """A section of settings, None where it is missing or not valid."""
    try:
        return build(kind, _section_of(content, name))
    except ParamsError:
        return None


def _section_of(content: object, name: str) -> object:
    return content.get(name) if isinstance(content, dict) else None


def _profile(name: str) -> Params:
    names = profiles.profile_names()
    if not names:
        raise MufinError(
            f"{profiles.FOLDER} has no profiles; use a checkout of the project (pip install -e .)"
        )
    if name not in names:
        near = difflib.get_close_matches(name[:80], names, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        quoted = name if name and name.isprintable() and len(name) <= 80 else shown(name)
        raise MufinError(f"{quoted} is not a profile; {hint}")
    return profiles.read_profile(name)


def _origin(head: str) -> Params:
    """The profile that a settings file was written from, else the default one."""
    with suppress(ParamsError):
        if (name := profiles.origin(head)) in profiles.profile_names():
            return profiles.read_profile(name)
    return profiles.read_profile(profiles.DEFAULT)


def _head(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(4096).decode(errors="replace")


def _write(path: Path, text: bytes, known: Callable[[], Iterator[bytes]]) -> Path | None:
    """Publishes `text`; returns the backup of what was there, if that is not one of `known`."""
    backup = None
    if path.exists() and path.stat().st_size:
        before = path.read_bytes()
        if before == text:
            return None
        if all(before != other for other in known()):
            backup = back_up(path)
    with publish(path) as scratch:
        scratch.write_bytes(text)
    return backup


def _profile_texts() -> Iterator[bytes]:
    for name in profiles.profile_names():
        with suppress(ParamsError):
            yield profiles.text_of_profile(name).encode()


def _variants(profile: str, target: Path) -> Path | None:
    """The variants file to write, where there is a comparison and the profile has variants."""
    if not (target.parent.is_dir() and _variants_of(profile).is_file()):
        return None
    return _target(target, lambda _: True, "a file of variants", True)


def _target(target: Path, made: Callable[[Path], bool], what: str, force: bool) -> Path:
    """`checked_target`, of a size that can be read and copied."""
    path = checked_target(target, made, what, force)
    if path.exists() and path.stat().st_size > LARGEST:
        raise MufinError(f"{target} has more than {LARGEST:,} bytes; move it away first")
    return path


def _variants_of(profile: str) -> Path:
    return profiles.FOLDER / f"variants/{profile}.yaml"


def _use_variants(target: Path, profile: str) -> str:
    """Writes the variants of a profile; returns a line that says so."""
    text, folder = _variants_of(profile).read_bytes(), profiles.FOLDER / "variants"
    same = target.is_file() and target.read_bytes() == text
    backup = _write(target, text, lambda: (p.read_bytes() for p in folder.glob("*.yaml")))
    line = f"{target} {'is, as before,' if same else 'is now'} params/variants/{profile}.yaml"
    return line + (f"; the variants before are in {backup}" if backup else "")


def _changes(before: Params | None, after: Params) -> str:
    """The settings that changed, one per line, as the end of a sentence about the file."""
    if before is None:
        return ""
    old, new = profiles.settings_of(before), profiles.settings_of(after)
    changed = [name for name in new if new[name] != old[name]]
    if not changed:
        return ", as before"
    width = max(map(len, changed))
    lines = (f"  {n.ljust(width)}  {_value(old[n])} -> {_value(new[n])}" for n in changed)
    return "\n".join([f"; {len(changed)} of {len(new)} have changed:", *lines])


def _kept(profile: str, own: Params, settings: Params) -> Iterator[str]:
    """Which settings are not those of the profile, and how to get those."""
    theirs, now = profiles.settings_of(own), profiles.settings_of(settings)
    kept = [name for name in now if now[name] != theirs[name]]
    if not kept:
        return
    yield "Kept, because you had set them:"
    width = max(map(len, kept))
    for name in kept:
        yield f"  {name.ljust(width)}  {_value(now[name])}, in {profile} {_value(theirs[name])}"
    yield f"`mufin use {profile} --all` takes these from {profile} too"


def _value(value: object) -> str:
    text = profiles.scalar(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _missing_catalog(settings: Params, folder: Path) -> str | None:
    """The path of a catalog that is not there yet; None where there is nothing to look for."""
    location = settings.download.location
    if not isinstance(location, str) or "://" in location or glob.has_magic(location):
        return None
    return None if os.path.exists(folder / os.path.expanduser(location)) else location
