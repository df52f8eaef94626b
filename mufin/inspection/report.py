"""The parts of what `mufin inspect` says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mufin import profiles
from mufin.catalog_params import Curate
from mufin.catalogs.forms import FORMS
from mufin.corpus.cleaning import clean_title
from mufin.corpus.matching import Unknown
from mufin.corpus.splits import mutual
from mufin.errors import escaped
from mufin.inspection import plan
from mufin.inspection.behaviour import Behaviour, time_split
from mufin.inspection.figures import Figures, degrees, reciprocity
from mufin.inspection.guess import Guess
from mufin.inspection.pictures import NO_PICTURE, Kept, outcomes
from mufin.inspection.reading import Reading
from mufin.inspection.words import counted, line, percent
from mufin.ragged import Lists

NOT_THERE = (": no such file", ": path outside the catalog's folder")  # ends of `outcomes`


def settings(guess: Guess, source: str | None) -> Iterator[str]:
    s = guess.download
    why = " (as you say)" if source else ""
    yield from line("Form", f"{s.source}{why}: {guess.form}")
    encodings = {look.encoding for look in guess.products if look.encoding}
    if encodings and s.source != "movielens":  # whose reader knows that of each release
        setting = f" (download.encoding: {s.encoding})" if s.encoding else ""
        yield from line("Encoding", f"{', '.join(sorted(encodings))}{setting}")
    if s.source == "catalog":
        named = profiles.settings_of(s.columns)
        columns = [f"{name}: {_none(value)}" for name, value in named.items()]
        yield from line("Columns", "; ".join(columns))
        used = {*s.columns.image_columns(), *s.columns.related_weights()}
        used |= {s.columns.id, s.columns.title, s.columns.category}
        used = {name.partition(".")[0].removesuffix("[]") for name in used}
        names = dict.fromkeys(name for look in guess.products for name in look.names)
        if left := [name for name in names if name not in used]:
            few = ", ".join(left[:15]) + (" and more" if len(left) > 15 else "")
            yield from line("  not used", escaped(few))
    if guess.behaviour:
        place = s.interactions
        roles = {"basket": place.basket, "item": place.item}
        roles |= {"time": place.time, "weight": place.weight}
        text = "; ".join(f"{key}: {column or 'none'}" for key, column in roles.items())
        paths = ", ".join(str(look.path) for look in guess.behaviour[:3])
        yield from line("  interactions", paths + (f": {text}" if place.basket else ""))
    if guess.labels:
        labels = s.labels
        yield from line("  labels", f"{guess.labels[0].path}: id: {labels.id}; text: {labels.text}")


def _none(value: object) -> str:
    return "none" if value in ("", []) else profiles.scalar(value)


def pictures_of(guess: Guess, figures: Figures, kept: Kept, fetch: bool) -> list[str]:
    """What becomes of the first picture of each product that is shown; see `outcomes`."""
    local = guess.download.source == "catalog" or FORMS[guess.download.source].local
    return outcomes(figures.first, kept, guess.download, local, fetch)


def products(figures: Figures, reading: Reading, pictures: list[str]) -> Iterator[str]:
    yield ""
    how = "all of them" if reading.ended else "the first ones; all figures are of these"
    if reading.problem:
        how = f"then reading stopped: {reading.problem}"
    yield from line("Products", f"{figures.rows:,} rows, {how}")
    for (product, _), picture in zip(figures.first, pictures):
        title = clean_title(product.title[:1000])[:150]
        none = "(no title: markup alone)" if product.title.strip() else "(no title)"
        yield from line(f"  {escaped(product.uid[:17])}", escaped(title) or none)
        many = f"{len(product.images)} pictures, the first" if product.images else ""
        yield from line("", f"{many} {picture}".strip().replace("1 pictures, the first", "picture"))
        few = ", ".join(uid[:40] for uid in product.related[:3]) + (
            " ..." if len(product.related) > 3 else ""
        )
        yield from line(
            "", escaped(f"related {len(product.related)}" + (f": {few}" if few else ""))
        )
        if product.category:
            yield from line("", escaped(f"category {' > '.join(product.category)}"[:150]))
    yield ""
    yield from line(
        "Pictures",
        f"{figures.images:,}, as {'URLs' if figures.urls else 'paths or in the file'}",
    )


def related(figures: Figures, guess: Guess, found: Behaviour | None) -> Iterator[str]:
    if figures.related:
        what = "are labels" if guess.labels else "are products of the catalog"
        share = counted(figures.found, figures.related, what)
        yield from line("Related ids", share)
        yield from _unknown(figures.unknown)
        if not figures.ended and figures.found < figures.related:
            yield from line("", "the others may be in rows that were not read")
    elif not found:
        yield from line("Related ids", "none")
    if found:
        known = found.rows - (found.unknown.count if found.unknown else 0)
        yield from line(
            "Interactions",
            f"{found.rows:,} rows"
            + ("" if found.ended else " (the first ones)")
            + f"{found.days()}; "
            + counted(known, found.rows, "are of products of the catalog"),
        )
        if found.problem:
            yield from line("", f"then reading stopped: {found.problem}")
        yield from _unknown(found.unknown)
        if len(sizes := found.sizes()):
            single = int((sizes == 1).sum())
            yield from line(
                "Baskets",
                f"{len(sizes):,}, median {np.median(sizes):g} products, largest {sizes.max():,}"
                + (f"; {counted(single, len(sizes), 'have one product alone')}" if single else ""),
            )


def _unknown(unknown: Unknown | None) -> Iterator[str]:
    if unknown is None or not unknown.count:
        return
    yield from line("", f"unknown: {unknown.count:,}, such as {unknown.example()}")
    if unknown.near:
        yield from line("", f"nearly an id: {unknown.near:,}, such as {unknown.near_example}")


def degrees_of(label: str, lists: Lists, figures: Figures) -> Iterator[str]:
    """How many related ids products have, labels that are no products left out."""
    lists = lists.take(np.arange(figures.products))
    if not (of := degrees(lists)) or not len(lists.values):
        yield from line(label, "none")
        return
    to = "from products to labels" if figures.labels else "between products"
    yield from line(
        label,
        f"{len(lists.values):,} {to}; per product min {of['min']:,}, median "
        f"{of['median']:g}, mean {of['mean']:.1f}, 90 % at most {of['most']:,}, max {of['max']:,}"
        + (f"; {counted(int(of['none']), len(lists), 'have none')}" if of["none"] else ""),
    )


def noticed(figures: Figures, reading: Reading, pictures: list[str]) -> Iterator[str]:
    lines = []
    looked_at = [text for text in pictures if text != NO_PICTURE]
    if looked_at and all(text.endswith(NOT_THERE) for text in looked_at):
        lines.append(
            "none of the pictures above was found: a path must be relative to the folder of the "
            "file that names it, and lead into that folder"
        )
    for count, of, what in (
        (figures.empty, figures.rows, "have neither title nor picture: dropped"),
        (figures.same_id, figures.rows, "have the id of an earlier row: joined with it"),
        (figures.same_title, figures.products, "have the title of another product"),
        (figures.without_title, figures.rows, "have no title"),
        (figures.without_image, figures.rows, "have no picture"),
        (figures.markup, figures.rows, "have a title that is markup alone"),
    ):
        if count.number:
            lines.append(counted(count.number, of, what, count.example))
    for reason, number in figures.repeated.items():
        if number:
            lines.append(f"{reason}: {number:,}, dropped")
    lines += [escaped(text) for text in reading.notes.sentences()]
    for number, text in enumerate(lines or ["nothing odd, nothing would be dropped"]):
        yield from line("Noticed" if not number else "", text)


def trials_of(
    figures: Figures, found: Behaviour | None, lists: Lists, s: Curate, guess: Guess
) -> list[plan.Trial]:
    if not len(lists.values):
        return []
    trials = plan.cold_and_warm(lists, s, figures.products if figures.labels else None)
    if found and found.timed:
        trials.append(plan.trial("time", lambda: time_split(found, figures, s)))
    return trials


def split_of(
    trials: list[plan.Trial], lists: Lists, found: Behaviour | None, labels: bool
) -> Iterator[str]:
    """Which splits leave what."""
    if not trials:
        yield from line("Split", "none is possible: there are no relations between products")
        return
    if not labels:
        yield from line(
            "Mutual", f"{percent(100 * reciprocity(lists))} of the relations have their reverse"
        )
    for number, t in enumerate(trials):
        text = f"{t.name}: {t.train:,} train, {t.valid:,} valid, {t.test:,} test datapoints, "
        text += f"{t.labels:,} labels"
        if not t.works:
            text = f"{t.name}: not possible: {_why(t, lists)}"
        yield from line("Split" if not number else "", text)
    if labels:
        yield from line("", "labels are no products: warm is the same, time is not possible")
    elif not found or not found.timed:
        why = "there are no interactions" if not found else "the interactions have no times"
        yield from line("", f"time: not possible: {why}")
    if not plan.suited(trials):
        kind = "relations that are no mutual pairs" if mutual(lists) else "more relations"
        yield from line("", f"add {kind}, or interactions with times for curate.split: time")


def _why(t: plan.Trial, lists: Lists) -> str:
    """Why a split leaves no datapoint of train or of test."""
    if t.name == "cold" and mutual(lists):
        return (
            "all relations are mutual pairs, of which it always holds out one product; use "
            "curate.split: warm or time where it is possible"
        )
    if t.name == "warm" and mutual(lists):
        return (
            "all relations are mutual pairs, and the reverse of a relation of train is not counted "
            "as an answer"
        )
    part = "test" if t.train else "train"
    return t.problem or f"it leaves no {part} datapoint with a label"


def planned(split: plan.Trial | None, reading: Reading, found: Behaviour | None) -> Iterator[str]:
    """The split to take, the profile, and what a run takes."""
    if split is None:
        return
    yield from line("  suited", f"curate.split: {split.name}")
    about = plan.estimate(split.train, not reading.ended)
    yield from line("Profile", f"{about.profile}: {about.why}")
    yield from line("Estimate", about.cost)
    if split.train < plan.FEW:
        yield from line("", "so few datapoints give figures that say little")
    if not reading.ended or (found and not found.ended):
        yield from line("", "of the rows that were read; the whole files have more")


def remarks(guess: Guess, figures: Figures) -> Iterator[str]:
    s, lines = guess.download, [escaped(text) for text in guess.remarks]
    if s.match_ids:
        lines.append(
            f"download.match_ids: {profiles.scalar(s.match_ids)} joins ids that nearly match; "
            "without it most related ids are unknown"
        )
    if s.bad_rows:
        lines.append(f"download.bad_rows: {s.bad_rows:g} drops the bad rows named above")
    if figures.same_id.number > 0.2 * figures.rows and s.source == "catalog":
        lines.append(
            "Products have several rows: the relations of all of them count, the title and the "
            "pictures are those of the first row that has both"
        )
    if not figures.related and not guess.behaviour:
        lines.append(
            "There are no relations, so nothing can be learnt yet: name a file of orders, baskets, "
            "ratings or clicks too"
        )
    if not figures.images:
        lines.append("There are no pictures: remove image from encoder.modalities")
    elif figures.without_title.number == figures.rows:
        lines.append("There are no titles: set encoder.modalities: [image]")
    for number, text in enumerate(lines):
        yield from line("Remarks" if not number else "", f"- {text}")
