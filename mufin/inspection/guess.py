"""Which settings read the files: the form, the columns, and what each file is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mufin.catalog_params import (
    AMAZON,
    WITH_ATTRIBUTES,
    WITH_TEXTS,
    Download,
    ImageVectors,
    Interactions,
    LabelTexts,
    OutfitTask,
)
from mufin.catalog_params import Columns as Names
from mufin.catalogs.cells import at
from mufin.catalogs.forms import FORMS
from mufin.errors import MufinError, shown
from mufin.inspection import catalog_columns as own
from mufin.inspection.behaviour_columns import behaviour_columns, pieces, shared
from mufin.inspection.candidates import Column, columns_of, text_of_item
from mufin.inspection.files import Given, Origin, located_at, origin_of
from mufin.inspection.look import Look, alike
from mufin.inspection.reading import known_ids

NOTHING = Interactions(location=None, basket=None, item=None, time=None, weight=None)
NO_LABELS = LabelTexts(location=None, id="id", text="text", prefix="")


@dataclass(slots=True)
class Guess:
    """Settings that read the files, and what there is to say about them."""

    download: Download
    products: list[Look]
    behaviour: list[Look] = field(default_factory=list)
    labels: list[Look] = field(default_factory=list)
    form: str = ""  # of the products, in words
    remarks: list[str] = field(default_factory=list)

    def rows(self, most: int) -> int:
        """The products that are read, at most."""
        return min((look.rows_to_read(most) for look in self.products), default=most)

    def interactions(self, most: int) -> int:
        """The interactions that are read, at most."""
        return min((look.rows_to_read(most) for look in self.behaviour), default=most)


@dataclass(slots=True)
class Table:
    """A file, or several with the same columns, of no known form."""

    looks: list[Look]
    columns: list[Column]
    found: own.Columns

    @property
    def score(self) -> float:
        """How much it looks like a catalog of products; 0 if it cannot be one."""
        found = self.found
        if not (found.images or found.related) and behaviour_columns(
            self.columns, self.looks[0].rows, ()
        ):
            return 0.0  # rows of orders, which name their products
        more = 2 * bool(found.images) + 2 * bool(found.related) + bool(found.title)
        return more + 0.5 if found.id and more else 0.0


def guessed(given: Given, source: str | None, base: Download, limit: int) -> Guess:
    """The settings for the files, in place of those of `base`; `source` says the form.

    Up to `limit` rows of a file are read to find related ids. Raises MufinError if no file has
    products.
    """
    empty = empty_download(base)
    for look in [look for look in given.looks if look.problem and len(given.looks) > 1]:
        if origin_of(look) is None:
            given.left.append((look.path, look.problem))
            given.looks.remove(look)
    if not given.looks:
        path, why = given.left[0]
        raise MufinError(f"none of the files can be read; {path}: {why}")
    origins = [(look, origin_of(look)) for look in given.looks]
    form = source or _form(origins)
    if form != "catalog" and form:
        guess = _of_form(form, origins, empty, base.columns.texts)
    else:
        guess = _of_tables(given.looks, empty, limit, base.columns.texts)
    guess.remarks += [f"{path} is not used: {why}" for path, why in given.left]
    return guess


def empty_download(base: Download) -> Download:
    """`base` without anything that says where the data is."""
    return replace(
        base,
        source="sample",
        location=None,
        columns=replace(base.columns, texts=[]),  # the sample has none
        encoding=None,
        match_ids=[],
        bad_rows=0.0,
        interactions=NOTHING,
        labels=NO_LABELS,
        image_vectors=ImageVectors(location=None, ids=None),
        outfits=OutfitTask(split=None, blank_type=False),
    )


def _form(origins: list[tuple[Look, Origin | None]]) -> str:
    """The form of the products, '' where no tool is known."""
    return next((o.source for _, o in origins if o and o.kind == "products"), "")


# Forms


def _of_form(
    form: str, origins: list[tuple[Look, Origin | None]], empty: Download, texts: list[str]
) -> Guess:
    products, behaviour, others, what = [], [], [], form
    for look, origin in origins:
        if origin and origin.kind == "interactions":
            behaviour.append(look)
        elif (origin and origin.source == form) or (len(origins) == 1):
            products.append(look)
            what = origin.what if origin else form
        else:
            others.append(look)
    if not products:
        products, others = others, []
    if not products:
        raise MufinError(
            f"no file has products of {form}, only orders or ratings; name the products' file too"
        )
    columns = empty.columns
    if form not in WITH_ATTRIBUTES:
        columns = replace(columns, attributes=[])
    if form in WITH_TEXTS:
        columns = replace(columns, texts=texts)
    download = replace(
        empty,
        source=form,  # type: ignore[arg-type] # checked
        columns=columns,
        location=located_at([look.path for look in products]),
        encoding=next((look.setting for look in products if look.setting), None),
    )
    if form == "movielens":  # its reader knows the encodings of the releases
        download = replace(download, encoding=None)
    guess = Guess(download, products, form=what)
    own_form = [look for look in behaviour if _reads(form, origin_of(look))]
    if own_form:
        guess.behaviour = own_form
        place = located_at([look.path for look in own_form])
        guess.download = replace(download, interactions=replace(NOTHING, location=place))
    others += [look for look in behaviour if look not in own_form]
    if others:
        _add_tables(guess, [_table([look], 1000) for look in others], empty)
    return guess


def _reads(form: str, origin: Origin | None) -> bool:
    """Whether the form's reader of interactions reads a file of this origin."""
    same = origin and (origin.source == form or {origin.source, form} <= set(AMAZON))
    return bool(same) and FORMS[form].interactions is not None


# Files with columns of one's own


def _of_tables(looks: list[Look], empty: Download, limit: int, texts: list[str]) -> Guess:
    groups: dict[tuple[str, ...], list[Look]] = {}
    for look in looks:
        same = (look.kind, *look.names) if look.kind != "json" else ("json", str(look.path.parent))
        groups.setdefault(same, []).append(look)
    # JSON lines differ in their columns from row to row: those of a folder are one group if alike.
    tables = [_table(some, limit) for group in groups.values() for some in _alike(group)]
    best = max(tables, key=lambda table: table.score)
    if not best.score:
        raise _no_products(best)
    found = best.found
    there = {column.name for column in best.columns}
    kept = [name for name in empty.columns.attributes if name in there]
    texts = [name for name in texts if name in there]
    filters = own.for_filters(best.columns, found)
    names = Names(
        id=found.id,
        title=found.title,
        images=found.images[0] if len(found.images) == 1 else found.images,
        related=found.related[0] if len(found.related) == 1 else found.related,
        category=found.category,
        attributes=list(dict.fromkeys([*kept, *filters])),
        texts=texts,
    )
    download = replace(
        empty,
        source="catalog",
        location=located_at([look.path for look in best.looks]),
        columns=names,
        encoding=next((look.setting for look in best.looks if look.setting), None),
    )
    guess = Guess(download, best.looks, form="a table of your own")
    for name in found.views:
        guess.remarks.append(
            f"{name} has related ids too; to use both, set download.columns.related: "
            f"{{{', '.join([f'{related}: 1.0' for related in found.related])}, {name}: 0.3}}"
        )
    if filters:
        guess.remarks.append(
            f"recommendations can be limited by {', '.join(filters)} (download.columns.attributes)"
        )
    if more := [name for name in own.further_texts(best.columns, found) if name not in texts]:
        guess.remarks.append(
            f"further texts of products are in {', '.join(more)}; to learn from them too, set "
            f"download.columns.texts: [{', '.join([*texts, *more])}]"
        )
    if rest := [table for table in tables if table is not best]:
        _add_tables(guess, rest, empty)
    return guess


def _table(looks: list[Look], limit: int) -> Table:
    columns = columns_of([row for look in looks for row in look.rows][:2000])
    return Table(looks, columns, own.catalog_columns(looks, columns, limit))


def _alike(group: list[Look]) -> Iterator[list[Look]]:
    """The files of a group in lists of those that share most of their columns."""
    lists: list[list[Look]] = []
    for look in group:
        for some in lists:
            if alike(look.names, some[0].names):
                some.append(look)
                break
        else:
            lists.append([look])
    yield from lists


def _no_products(table: Table) -> MufinError:
    look = table.looks[0]
    if look.problem:
        return MufinError(look.problem)
    if not look.rows:
        return MufinError(f"{look.path} has no rows; a catalog has one product per row")
    if behaviour_columns(table.columns, look.rows, ()):
        return MufinError(
            f"{look.path} looks like orders, ratings or clicks; name the file of the products too"
        )
    has = ", ".join(look.names)[:100]
    missing = "id, different in each row" if not table.found.id else "title, picture or related id"
    return MufinError(
        f"{look.path} has no column that looks like a product's {missing} (it has {has})"
    )


def _add_tables(guess: Guess, tables: list[Table], empty: Download) -> None:
    """Adds the files that have interactions, or labels that are no products; names the others."""
    ids = known_ids(guess.download, guess.rows(200_000))
    for table in tables:
        looks, paths = table.looks, [look.path for look in table.looks]
        roles = behaviour_columns(table.columns, looks[0].rows, ids)
        s = guess.download
        if roles and not guess.behaviour and guess.download.labels.location is None:
            behaviour = Interactions(location=located_at(paths), **roles)
            guess.behaviour, guess.download = looks, replace(s, interactions=behaviour)
            if name := pieces(table.columns):
                guess.remarks.append(
                    f"{name} is not used: how many pieces are bought says little about what goes "
                    f"together; to use it, set download.interactions.weight: {name}"
                )
            _check_encodings(guess, looks)
        elif s.source == "catalog" and not guess.behaviour and _add_labels(guess, table):
            _check_encodings(guess, looks)
        else:
            guess.remarks.append(
                f"{shown(str(paths[0]))} is not used: none of its columns has ids of the products"
            )


def _check_encodings(guess: Guess, looks: list[Look]) -> None:
    settings = {look.setting for look in [*guess.products, *looks] if look.encoding}
    if len(settings) > 1:
        names = ", ".join(sorted(str(s or "UTF-8") for s in settings))
        guess.remarks.append(
            f"the files have different encodings ({names}), and download.encoding is one for all; "
            "convert them to UTF-8"
        )


def _add_labels(guess: Guess, table: Table) -> bool:
    """Whether the products relate to the rows of this file, which are then their labels."""
    rows = [row for look in table.looks for row in look.rows]
    found, rest = table.found, guess.products[0].rows
    texts = [c for c in table.columns if c.name != found.id and c.words > 1 and not c.nested]
    if not found.id or not texts:
        return False
    ids = {own.loose(text_of_item(at(row, found.id))) for row in rows}
    used = {
        guess.download.columns.id,
        guess.download.columns.title,
        guess.download.columns.category,
    }
    columns = [c for c in own.labels_related(columns_of(rest)) if c.name not in used]
    shares = {c.name: shared([at(row, c.name) for row in rest], ids) for c in columns}
    name = max(shares, key=shares.__getitem__, default="")
    if not name or shares[name] < 0.2 or guess.download.columns.related not in ([], name):
        return False
    prefix = "label:" if ids & known_ids(guess.download, guess.rows(20_000)) else ""
    text = found.title or texts[0].name
    place = located_at([look.path for look in table.looks])
    guess.labels = table.looks
    guess.download = replace(
        guess.download,
        columns=replace(guess.download.columns, related=name),
        labels=LabelTexts(location=place, id=found.id, text=text, prefix=prefix),
    )
    return True
