"""`mufin inspect`: what files hold, as a person reads it before the first run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mufin import profiles
from mufin.catalog_params import MATCHES, Download
from mufin.catalogs.forms import FORMS
from mufin.errors import MufinError, escaped, shown
from mufin.inspection import plan, section
from mufin.inspection.behaviour import LIMIT as INTERACTIONS
from mufin.inspection.behaviour import Behaviour, behaviour_of
from mufin.inspection.figures import Figures, figures_of, with_more
from mufin.inspection.files import RELEASED, given_files, released_sizes
from mufin.inspection.guess import Guess, empty_download, guessed
from mufin.inspection.pictures import Kept
from mufin.inspection.reading import Reading
from mufin.inspection.report import (
    degrees_of,
    noticed,
    pictures_of,
    planned,
    products,
    related,
    remarks,
    settings,
    split_of,
    trials_of,
)
from mufin.inspection.words import line
from mufin.params import Params, load_params
from mufin.ragged import Lists

LIMIT = 200_000  # rows of products that are read
PROFILE = "small-catalog"  # whose settings those are that the files do not decide


def inspect(
    paths: list[str],
    write: Path | None = None,
    source: str | None = None,
    *,
    encoding: str | None = None,
    fetch: bool = False,
    rows: int = LIMIT,
) -> Iterator[str]:
    """Yields the lines that say what the files hold; `write` is the settings file to change.

    `source` is the form of the files (download.source), None to guess it. Up to `rows` products are
    read; URLs only with `fetch`. Raises MufinError if the files cannot be read as a catalog.
    """
    _check_source(source)
    base = load_params(write) if write else profiles.read_profile(PROFILE)
    given = given_files(paths, encoding)
    if given.released or source in RELEASED:
        yield from _released(source or given.released, given.folder or paths[0], base, write)
        return
    for look in given.looks:
        yield from line("File", escaped(look.described()))
    guess = guessed(given, source, base.download, rows)
    yield from settings(guess, source)
    kept = Kept()
    reading = Reading(guess.download, guess.rows(rows), kept.keep)
    figures = figures_of(reading)
    if not figures.rows:
        raise MufinError(f"{guess.products[0].path} has no product that can be read")
    pictures = pictures_of(guess, figures, kept, fetch)
    yield from products(figures, reading, pictures)
    most = guess.interactions(INTERACTIONS)
    found = behaviour_of(reading, figures, base.curate, most) if guess.behaviour else None
    yield from related(figures, guess, found)
    guess.download = _mended(guess.download, figures, found, reading)
    if guess.download.match_ids:  # the rest is said of the products with joined ids
        again = Reading(guess.download, guess.rows(rows))
        joined, names = figures_of(again), profiles.scalar(guess.download.match_ids)
        if joined.same_id.number > figures.same_id.number:
            yield from line("", f"but download.match_ids: {names} makes ids of products equal")
            guess.download = replace(guess.download, match_ids=[])
        else:
            figures = joined
            found = behaviour_of(again, figures, base.curate, most) if guess.behaviour else None
            yield from line("", f"with download.match_ids: {names} the following:")
            yield from related(figures, guess, found)
    lists = figures.relations.lists if figures.relations else Lists.of_rows([])
    if found and found.relations:
        yield from degrees_of("Relations before", lists, figures) if len(lists.values) else ()
        lists = with_more(figures, found.relations).lists
    yield from degrees_of("Relations", lists, figures)
    yield from noticed(figures, reading, pictures)
    trials = trials_of(figures, found, lists, base.curate, guess)
    yield from split_of(trials, lists, found, bool(figures.labels))
    split = plan.suited(trials)
    yield from planned(split, reading, found)
    yield from remarks(guess, figures)
    yield from _written(guess, base, write, _needed(trials, base.curate.split, split))


def _check_source(source: str | None) -> None:
    known = ["catalog", *RELEASED, *FORMS]
    if source is not None and source not in known:
        raise MufinError(f"{shown(source)} is no form; give one of {', '.join(known)}")


def _released(source: str, folder: str, base: Params, write: Path | None) -> Iterator[str]:
    """A data set with a split of its own, which is read as a whole by the stage alone."""
    yield from line("Form", f"{source}: a data set of the Extreme Classification Repository")
    for name, size in released_sizes(Path(folder)).items():
        yield from line(f"  {name}", size)
    yield from line("Split", "its own (curate.split is not used)")
    profile = "mm-amazontitles-300k" if source == RELEASED[0] else "paper"
    yield from line("Profile", f"{profile}, on a GPU; the head of its file has hours and memory")
    empty = empty_download(base.download)
    guess = Guess(replace(empty, source=source, location=folder), [])  # type: ignore[arg-type]
    yield from _written(guess, base, write, None)


def _needed(trials: list[plan.Trial], now: str, split: plan.Trial | None) -> str | None:
    """The split to set: the one that is suited, if the one of the settings leaves nothing."""
    works = any(t.works for t in trials if t.name == now)
    return split.name if split and not works else None


def _mended(s: Download, figures: Figures, found: Behaviour | None, reading: Reading) -> Download:
    """The settings that drop bad rows, and join ids where hardly any is found otherwise."""
    share = 1.5 * max(bad.bad / max(bad.rows, 1) for bad in (reading.bad, *reading.others))
    if share:
        power = 10.0 ** math.floor(math.log10(share))
        s = replace(s, bad_rows=min(round(math.ceil(share / power) * power, 8), 0.99))
    for unknown, known in (
        (figures.unknown, figures.found),
        (
            found and found.unknown,
            found.rows - found.unknown.count if found and found.unknown else 0,
        ),
    ):
        if unknown and unknown.near > known:
            names = unknown.near_example.rpartition("download.match_ids:")[2]
            s = replace(s, match_ids=[name for name in MATCHES if name in names])  # type: ignore[misc]
    return s


def _written(guess: Guess, base: Params, write: Path | None, split: str | None) -> Iterator[str]:
    s = guess.download
    yield ""
    if write is None:
        yield "The settings, which --write params.yaml puts there:"
        yield from section.printed(s, base.download)
        if split:
            yield "curate:"
            yield f"  split: {split}"
        return
    yield from section.write(write, _from_folder(s, write), split)


def _from_folder(s: Download, write: Path) -> Download:
    """The settings with absolute paths, unless the settings file is in this folder."""
    if write.resolve().parent == Path.cwd():
        return s

    def absolute(location: str | list[str] | None) -> str | list[str] | None:
        if isinstance(location, list):
            return [str(Path(p).expanduser().absolute()) for p in location]
        return location and str(Path(location).expanduser().absolute())

    return replace(
        s,
        location=absolute(s.location),
        interactions=replace(s.interactions, location=absolute(s.interactions.location)),
        labels=replace(s.labels, location=absolute(s.labels.location)),
    )
