"""What a report was made from: catalog, date, commit and profile, in words."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

NAMED = 6  # changed settings that are listed by name
RESULTS = (":(exclude)metrics", ":(exclude)*dvc.lock")  # what a run itself changes


@dataclass(frozen=True, slots=True)
class Provenance:
    """The head of the report."""

    catalog: str
    date: str
    commit: str
    profile: str


def now() -> str:
    """Today's date and time to the minute, in UTC."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def catalog(source: str, location: str | list[str] | None) -> str:
    """`download.source` and `download.location` as text.

    A URL's user, password and query are left out: they may be secret.
    """
    if source == "sample":
        return "the built-in sample"
    if source == "sample-outfits":
        return "the built-in outfits"
    places = [location] if isinstance(location, str) else location or []
    return f"{source}: {', '.join(map(_public, places)) or 'the released files'}"


def _public(place: str) -> str:
    if "://" not in place:
        return place
    url = urlsplit(place)
    return url._replace(netloc=url.netloc.split("@")[-1], query="", fragment="").geturl()


def commit(folder: Path) -> str:
    """The commit that `folder` has checked out, and whether code or settings differ from it."""
    head = _git(folder, "rev-parse", "--short=10", "HEAD")
    if head is None:
        return "none (not a git repository with a commit)"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", *RESULTS)
    return f"{head} with uncommitted changes" if changed else head


def _git(folder: Path, *words: str) -> str | None:
    """What git prints; None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def profile(settings: dict, profiles: dict[str, dict]) -> str:
    """The profile that `settings` differ least from, and the names of the settings that differ.

    Both are complete, nested as in params.yaml; `profiles` {name: settings}.
    """
    own = _flat(settings)
    changed = {name: _changed(own, _flat(other)) for name, other in profiles.items()}
    if not changed:
        return "unknown"
    name = min(changed, key=lambda n: (len(changed[n]), n))
    if not changed[name]:
        return name
    names = changed[name][:NAMED]
    more = len(changed[name]) - len(names)
    count = f"{len(changed[name])} setting{'s' if len(changed[name]) > 1 else ''} changed"
    return f"{name}, {count}: {', '.join(names)}{f' and {more} more' if more else ''}"


def _flat(settings: dict, prefix: str = "") -> dict[str, object]:
    """{dotted name: value}."""
    out: dict[str, object] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict) and value
        out |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return out


def _changed(own: dict[str, object], other: dict[str, object]) -> list[str]:
    """Names whose values differ, in the order of `own`, then those that only `other` has."""
    missing = object()
    names = [*own, *(name for name in other if name not in own)]
    return [name for name in names if own.get(name, missing) != other.get(name, missing)]
