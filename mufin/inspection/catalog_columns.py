"""Which columns of a catalog of your own hold ids, titles, pictures, related ids and categories.

Related ids are known by what they name: their items are ids, however the column is called.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mufin.catalogs.bad_rows import BadRows, Row
from mufin.catalogs.cells import at
from mufin.catalogs.column_names import SYNONYMS
from mufin.catalogs.notes import Notes
from mufin.catalogs.rows import rows_of_part
from mufin.errors import MufinError
from mufin.inspection.candidates import Column, items_of, plain, text_of_item
from mufin.inspection.look import Look

HINTS = {key: [plain(name) for name in names.split()] for key, names in SYNONYMS.items()}
NO_ID = re.compile(
    r"parent|group|user|customer|order|categor|brand|image|picture|seller|store|unnamed"
)
NO_RELATED = re.compile(
    r"categor|tag|price|count|number|rating|rank|qty|quantity|stock|size|colou?r|image|picture|"
    r"photo|parent|group|brand|year|width|height|weight|length|position"
)
NO_TITLE = re.compile(r"descri|categor|brand|feature|detail|html|keyword|url|tag")
NO_PICTURE = re.compile(r"logo|icon|flag|swatch|avatar|video")
VIEWS = re.compile(r"view|seen|click|similar")  # relations that say less than purchases
# Names of one picture's sizes, the best first
SIZES = ("hires", "highres", "original", "full", "xlarge", "large", "big", "zoom", "medium", "url")
SIZE = re.compile(
    r"hi_?res|high_?res|original|full|x?large|big|zoom|medium|small|thumb(nail)?|url|"
    r"(?<=[-_ ])(xs|s|m|x*l)$"
)
LARGE, LITTLE = re.compile(r"[-_ ]x*l$", re.I), re.compile(r"[-_ ](xs|s)$", re.I)
FILTER = re.compile(r"price|stock|availab|brand|vendor|manufacturer|colou?r$|size$")  # for filters
LONGEST_VALUE = 60  # characters of a value to filter by
FILTERS = 6  # columns for filters that are named
TEXT = re.compile(r"descri|bullet|feature|detail|material|summary|body|ingredient|keyword")
CANDIDATES = 6  # columns of related ids whose items are looked up
LONG = 5000  # characters of a text that is no list of ids, at least
DISTINCT = 300_000  # different ids kept per column
FEW, SOME = 0.005, 0.2  # share of items that are ids: enough where the column tells, and not


@dataclass(slots=True)
class Columns:
    """The columns of a catalog; '' or [] for none."""

    id: str = ""
    title: str = ""
    images: list[str] = field(default_factory=list)
    related: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)  # more columns of related ids, weaker ones
    category: str = ""


def catalog_columns(looks: list[Look], columns: list[Column], limit: int) -> Columns:
    """The columns of the files `looks`, which are parts of one catalog; id '' if it has none.

    Up to `limit` rows are read to find the related ids.
    """
    ids = [c for c in columns if _may_be_id(c)]
    ids = sorted(ids, key=_id_score, reverse=True)[:4]
    if not ids:
        return Columns()
    pictures = _images(columns)
    related = [c for c in columns if c.name not in pictures and _may_be_related(c)]
    related = sorted(related, key=_related_score, reverse=True)[:CANDIDATES]
    found = overlaps(_rows(looks, ids + related, limit), ids, related) if related else {}
    chosen = max(ids, key=lambda c: _id_score(c) + 3 * _best(found, c, related))
    out = Columns(id=chosen.name, images=pictures)
    names = [c for c in related if c != chosen and _is_related(c, *found[chosen.name, c.name])]
    strong = [c.name for c in names if not VIEWS.search(c.plain)]
    weak = [c.name for c in names if VIEWS.search(c.plain)]
    out.related, out.views = (strong, weak) if strong else (weak[:1], weak[1:])
    rest = [c for c in columns if c.name not in {chosen.name, *pictures, *out.related, *out.views}]
    out.title = _title(rest)
    out.category = _hinted("category", [c for c in rest if c.name != out.title and not c.nested])
    return out


def for_filters(columns: list[Column], found: Columns) -> list[str]:
    """Columns that people may want to limit recommendations by, such as price and brand."""
    used = {found.id, found.title, found.category, *found.images, *found.related, *found.views}
    return [
        c.name
        for c in columns
        if FILTER.search(c.plain)
        and c.name not in used
        and not c.nested
        and c.pictures + c.urls < 0.1
        and c.longest <= LONGEST_VALUE
        and c.rows
    ][:FILTERS]


def further_texts(columns: list[Column], found: Columns) -> list[str]:
    """Columns with texts beside the title, such as a description."""
    used = {found.id, found.title, found.category, *found.images, *found.related, *found.views}
    return [
        c.name
        for c in columns
        if TEXT.search(c.plain)
        and c.name not in used
        and not c.nested
        and c.pictures + c.urls < 0.1
        and c.words > 1.3
    ]


def labels_related(columns: list[Column]) -> list[Column]:
    """The columns that may hold ids of labels which are no products."""
    return [c for c in columns if c.ids > 0.8 and not c.nested and c.pictures + c.urls < 0.1]


# Ids


def _may_be_id(c: Column) -> bool:
    single = c.listed < 0.05 and not c.nested and c.name != "" and not _fractions(c)
    # A product can have several rows: then its name must tell, and the rows of it are joined.
    differ = c.distinct > 0.5 or (c.distinct > 0.02 and hint("id", c) > 1)
    short = c.urls + c.pictures < 0.1 and c.longest <= 40 and c.words <= 2
    like = c.ids > 0.9 or (short and (hint("id", c) >= 1 or c.distinct > 0.98))
    return single and c.share > 0.9 and like and differ


def _fractions(c: Column) -> bool:
    return c.numbers > 0.9 and any(word in c.plain for word in ("price", "rating", "score"))


def _id_score(c: Column) -> float:
    return hint("id", c) + 2 * (c.distinct > 0.98) - 2 * bool(NO_ID.search(c.plain))


def hint(key: str, c: Column) -> float:
    """2 if the name is one that tools give to the column `key`, 0 if it says nothing."""
    last = plain(c.name.rpartition(".")[2])
    for name in (c.plain, last):
        if name in HINTS[key]:
            return 2 - 0.02 * HINTS[key].index(name)
    if key == "id":
        return 1.0 if last.endswith(("id", "sku", "code", "asin", "no", "nr", "number")) else 0.0
    return 1.0 if any(len(h) > 3 and h in c.plain for h in HINTS[key]) else 0.0


# Related ids


def _may_be_related(c: Column) -> bool:
    like = c.ids > 0.7 or hint("related", c) > 1 or (c.listed > 0.1 and c.longest < LONG)
    items = not c.nested and like and c.pictures + c.urls < 0.2 and c.rows > 0
    return items and c.name != "" and not NO_RELATED.search(c.plain) and c.times < 0.9


def _related_score(c: Column) -> float:
    return hint("related", c) + 2 * (c.listed > 0.1) + c.distinct


def overlaps(
    rows: Iterable[Row], ids: list[Column], related: list[Column]
) -> dict[tuple[str, str], tuple[int, int, int]]:
    """{(column of ids, column of items): (items, of these ids, different items)}.

    Ids that differ in case, blanks, leading zeros or the code points of characters count as equal.
    """
    known: dict[str, set[str]] = {c.name: set() for c in ids}
    items: dict[str, Counter[str]] = {c.name: Counter() for c in related}
    own: Counter[tuple[str, str]] = Counter()  # items that are the id of their own row
    for row in rows:
        here = {name: loose(text_of_item(at(row, name))) for name in known}
        for name, texts in known.items():
            if len(texts) < DISTINCT:
                texts.add(here[name])
        for name, counts in items.items():
            for item in items_of(at(row, name)):
                text = loose(text_of_item(item))
                if text in counts or len(counts) < DISTINCT:
                    counts[text] += 1
                    own.update((a, name) for a, mine in here.items() if mine == text)
    out = {}
    for a, texts in known.items():
        texts.discard("")
        for b, counts in items.items():
            inside = sum(count for text, count in counts.items() if text in texts)
            out[a, b] = counts.total() - own[a, b], inside - own[a, b], len(counts)
    return out


def loose(text: str) -> str:
    """The id without what `download.match_ids` can leave out."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = "".join(text.split()).lower()
    if text.endswith(".0") and text[:-2].isdecimal():  # as `cells.uid_of` reads it
        text = text[:-2]
    return text.lstrip("0") or text


def _best(found: dict, c: Column, related: list[Column]) -> float:
    shares = [
        found[c.name, r.name] for r in related if r != c and _is_related(r, *found[c.name, r.name])
    ]
    return max((inside / total for total, inside, _ in shares if total), default=0.0)


def _is_related(c: Column, total: int, inside: int, distinct: int) -> bool:
    if not total:
        return False
    named = hint("related", c) >= 1
    if named and c.listed > 0:
        return inside > 0
    # Numbers from 1 on are ids and many other things: those of related products are many.
    telling = c.numbers < 0.5 or distinct > 0.2 * c.rows
    enough = FEW if named or (c.listed > 0.1 and c.numbers < 0.5) else SOME
    return inside > enough * total and telling and (named or c.listed > 0.1 or c.numbers < 0.5)


def _rows(looks: list[Look], columns: list[Column], limit: int) -> Iterator[Row]:
    """The first rows of the files, up to `limit` of each; a fault ends a file."""
    names = [c.name for c in columns]
    for look in looks:
        if look.whole:
            yield from look.rows
            continue
        bad = BadRows(Notes(), 0.999)
        rows = rows_of_part(look.part, Notes(), encoding=look.setting, columns=names, bad=bad)
        # Of Parquet only these columns are read, of other files whole rows.
        most = limit if look.kind == "parquet" else look.rows_to_read(limit)
        try:
            for _, row in itertools.islice(rows, most):
                yield row
        except MufinError:
            continue


# Pictures, titles, categories


def _images(columns: list[Column]) -> list[str]:
    """The columns of pictures, in the order of the file; of the sizes of one picture the best."""
    found = [c for c in columns if c.rows and not c.nested and _holds_pictures(c)]
    found = [c for c in found if not NO_PICTURE.search(c.plain)] or found
    stems: dict[str, list[Column]] = {}
    for c in found:
        stem = c.name.partition("[].")[0].partition(".")[0] if "." in c.name else c.name.lower()
        stems.setdefault(plain(SIZE.sub("", stem)), []).append(c)
    return [_largest(some) for some in stems.values()][:20]


def _holds_pictures(c: Column) -> bool:
    return c.pictures > 0.5 or (c.urls > 0.5 and hint("images", c) >= 1)


def _largest(some: list[Column]) -> str:
    """The column of the largest pictures, of those that nearly all products have."""
    most = max(c.rows for c in some)
    full = [c for c in some if c.rows > 0.9 * most]

    def rank(c: Column) -> int:
        last = plain(c.name.rpartition(".")[2])
        if "thumb" in last or "small" in last or LITTLE.search(c.name):
            return 99
        if LARGE.search(c.name):
            return SIZES.index("large")
        return next((i for i, s in enumerate(SIZES) if s in last), 50)

    return min(full, key=rank).name


def _title(columns: list[Column]) -> str:
    texts = [
        c
        for c in columns
        if c.rows and not c.nested and c.urls + c.pictures < 0.3 and c.numbers < 0.5
    ]
    if named := _hinted("title", texts):
        return named
    free = [c for c in texts if c.words > 1.3 and c.distinct > 0.3 and c.times < 0.5]
    free = [c for c in free if not NO_TITLE.search(c.plain) and c.longest < 500] or free
    return max(free, key=lambda c: hint("title", c)).name if free else ""


def _hinted(key: str, columns: list[Column]) -> str:
    best = max(columns, key=lambda c: (hint(key, c), c.share), default=None)
    return best.name if best and hint(key, best) >= (1.5 if key == "title" else 1) else ""
