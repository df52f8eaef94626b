"""Files of a shop or a data set to a catalog of one's own: what `mufin import` does.

The catalog is one Parquet file, and the interactions another one beside it. Both are read back by
`download.source: catalog`, and give the same data as the form itself as `download.source` does.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.publication import publish
from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.forms import FORMS, Form, Interaction, located
from mufin.catalogs.locations import files_of
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from mufin.corpus.fetch import is_url
from mufin.errors import MufinError, shown

MARK = {b"mufin": b"import"}  # in the files that are written here
TEXTS = pa.list_(pa.string())
CATALOG = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("images", TEXTS),
        ("related", TEXTS),
        ("category", TEXTS),
        ("other_ids", TEXTS),
    ],
    metadata=MARK,
)
INTERACTIONS = pa.schema(
    [
        ("basket", pa.string()),
        ("item", pa.string()),
        ("time", pa.float64()),
        ("weight", pa.float32()),
    ],
    metadata=MARK,
)
FIELDS = {"id": "uid"}  # of Product, where its name is another
ROWS = 10_000  # products that are written at once
OPTIONS = {  # settings of the stage download, as the command calls them
    "download.location names": "the command names",
    "download.bad_rows": "--bad-rows",
    "download.encoding": "--encoding",
}
NO_RELATIONS = (
    "There are no relations yet: set download.interactions to orders, ratings or clicks; of some "
    "forms --interactions reads them"
)
SHARED = "other ids (SKUs, names) of several products; the first one keeps it"
T = TypeVar("T")


def interactions_file(out: Path) -> Path:
    """Where the interactions of the catalog `out` go: catalog.interactions.parquet."""
    return out.with_name(f"{out.stem}.interactions.parquet")


def is_import(path: Path) -> bool:
    """Whether `import_catalog` wrote the file."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError):
        return False
    return metadata.get(b"mufin") == MARK[b"mufin"]


def import_catalog(
    source: str,
    files: list[str],
    interactions: list[str],
    out: Path,
    *,
    encoding: str | None = None,
    bad_rows: float = 0.0,
) -> Iterator[str]:
    """Write the products of `files` to `out`, and `interactions` beside it; yields what to print.

    `source` is a key of FORMS; `encoding` and `bad_rows` are as in the section download. Related
    ids and items of interactions that name a product by another of its ids, such as a SKU, are
    written as its id. The lines are counts, then each thing that was noticed with an example, then
    the section `download` that reads the files. Raises MufinError, before anything is written at
    `out`, if a file is not of the form.
    """
    with _in_words_of_the_command():
        lines = _imported(source, files, interactions, out, encoding, bad_rows)
    yield from lines


@contextlib.contextmanager
def _in_words_of_the_command() -> Iterator[None]:
    """Errors name the options of the command in place of settings of the stage download."""
    try:
        yield
    except MufinError as error:
        text = str(error)
        for setting, words in OPTIONS.items():
            text = text.replace(setting, words)
        raise MufinError(text) from None


def _imported(
    source: str,
    files: list[str],
    interactions: list[str],
    out: Path,
    encoding: str | None,
    bad_rows: float,
) -> list[str]:
    """Write both files; the lines to print."""
    form = _form(source)
    paths = _paths(located(source, files))
    if interactions and form.interactions is None:
        raise MufinError(
            f"{source} has no form of its own for orders; give {shown(interactions[0])} as "
            "download.interactions.location, with the names of its columns"
        )
    behaviour = _paths(located(source, interactions, True)) if interactions else []
    notes = Notes()
    reading = Reading(form, notes, BadRows(notes, bad_rows), encoding)
    prefix = _pictures_from(paths, out) if form.local else ""
    beside = interactions_file(out)
    with publish(out) as made:
        counts, names = _write_products(reading, paths, made, prefix)
        if not counts["products"]:
            raise MufinError(f"{paths[0]} has no product that is sold; {_why(notes)}")
        if behaviour:
            with publish(beside) as made_beside:
                counts |= _write_interactions(reading, behaviour, names, made_beside)
                _count_unknown(made_beside, made, notes)
                reading.bad.check()
        reading.bad.check()
    lines = [
        f"{out}: {counts['products']} products, {counts['images']} image references, "
        f"{counts['related']} related ids"
    ]
    if behaviour:
        lines.append(f"{beside}: {counts['interactions']} interactions")
    lines += notes.sentences()
    if not counts["related"] and not behaviour:
        lines.append(NO_RELATIONS)
    return [*lines, *_section(out, counts)]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the files are read."""

    form: Form
    notes: Notes
    bad: BadRows
    encoding: str | None

    def products(self, files: list[Path]) -> Iterator[Product]:
        return self.form.products(files, self.notes, encoding=self.encoding, bad=self.bad)

    def interactions(self, files: list[Path]) -> Iterator[Interaction]:
        assert self.form.interactions is not None
        return self.form.interactions(files, self.notes, encoding=self.encoding, bad=self.bad)


def _form(source: str) -> Form:
    if source in FORMS:
        return FORMS[source]
    near = difflib.get_close_matches(source.lower(), FORMS, 1, 0.5)
    raise MufinError(
        f"{shown(source)} is no form"
        + (f"; did you mean {near[0]}?" if near else "")
        + f" (forms: {', '.join(FORMS)}); other files need no import: source catalog reads them"
    )


def _paths(location: str | list[str]) -> list[Path]:
    def fetched(url: str) -> Path:
        raise MufinError(f"{shown(url)} is a URL; fetch the file, then import it")

    return [file.path for file in files_of(location, fetched)]


def _why(notes: Notes) -> str:
    return "; ".join(notes.sentences())[:150] or "the file has no rows"


def _pictures_from(files: list[Path], out: Path) -> str:
    """The path from the folder of `out` to the folder of the pictures, `` or ending with a slash.

    Raises MufinError if that folder is not in the folder of `out`: a catalog may name only pictures
    in its own folder.
    """
    if len(files) > 1:
        raise MufinError(f"there are {len(files)} files of products; give {files[0].name} alone")
    folder, home = files[0].resolve().parent, out.resolve().parent
    if not folder.is_relative_to(home):
        raise MufinError(
            f"{out} would name pictures outside its folder, which is not read; write it to "
            f"{folder / out.name}, or to a folder above that"
        )
    prefix = folder.relative_to(home).as_posix()
    return "" if prefix == "." else f"{prefix}/"


# Writing


def _write_products(
    reading: Reading, files: list[Path], path: Path, prefix: str
) -> tuple[Counter[str], dict[str, str]]:
    """Write the catalog; counts, and {another id: the id} of products.

    The related ids are resolved when all products are known. In memory are only the other ids.
    """
    read, names = path.with_name("read.parquet"), dict[str, str]()
    counts: Counter[str] = Counter(products=0, images=0, related=0)
    with pq.ParquetWriter(read, CATALOG) as writer:
        for batch in _batches(reading.products(files)):
            for product in batch:
                product.images = [_moved(image, prefix) for image in product.images]
                for other in product.other_ids:
                    # The first product keeps it, as in the stage curate.
                    if names.setdefault(other, product.uid) != product.uid:
                        reading.notes.add(SHARED, other)
            columns = {n: [getattr(p, FIELDS.get(n, n)) for p in batch] for n in CATALOG.names}
            writer.write_table(pa.table(columns, schema=CATALOG))
            counts["products"] += len(batch)
            counts["images"] += sum(len(p.images) for p in batch)
            counts["related"] += sum(len(p.related) for p in batch)
    if names:
        for ids in pq.ParquetFile(read).iter_batches(ROWS, columns=["id"]):
            for uid in ids["id"].to_pylist():
                names.pop(uid, None)
    with pq.ParquetWriter(path, CATALOG, compression="zstd") as writer:
        for rows in pq.ParquetFile(read).iter_batches(ROWS):
            writer.write_table(_resolved(pa.table(rows), names))
    return counts, names


def _moved(image: str, prefix: str) -> str:
    return image if is_url(image) else prefix + image


def _resolved(table: pa.Table, names: dict[str, str]) -> pa.Table:
    """The products with the ids of related products in the place of their other ids."""
    if not names:
        return table.cast(CATALOG)
    related = [[names.get(uid, uid) for uid in row] for row in table["related"].to_pylist()]
    at = CATALOG.names.index("related")
    return table.set_column(at, CATALOG.field(at), pa.array(related, TEXTS)).cast(CATALOG)


def _write_interactions(
    reading: Reading, files: list[Path], names: dict[str, str], path: Path
) -> Counter[str]:
    """Write the interactions; how many there are, and how many of them have a time."""
    counts: Counter[str] = Counter(interactions=0, timed=0)
    with pq.ParquetWriter(path, INTERACTIONS, compression="zstd") as writer:
        for batch in _batches(reading.interactions(files), 10 * ROWS):
            baskets, items, times, weights = zip(*batch)
            columns = [baskets, [names.get(item, item) for item in items], times, weights]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, INTERACTIONS)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=INTERACTIONS))
            counts["interactions"] += len(batch)
            counts["timed"] += len(batch) - arrays[2].null_count
    if not counts["interactions"]:
        raise MufinError(f"{files[0]} has no interaction; {_why(reading.notes)}")
    return counts


def _batches(items: Iterator[T], size: int = ROWS) -> Iterator[list[T]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _count_unknown(interactions: Path, catalog: Path, notes: Notes) -> None:
    """Notes how many interactions are with products that the catalog does not have."""
    import polars as pl

    items = pl.scan_parquet(interactions).group_by("item").len().collect(engine="streaming")
    known = pl.scan_parquet(catalog).select(pl.col("id").alias("item"))
    unknown = items.lazy().join(known, on="item", how="anti").sort("len", "item").collect()
    if len(unknown):
        example, count = unknown["item"][-1], int(unknown["len"].sum())
        notes.add("interactions with products that are not in the catalog", example, count)


# The section `download` that reads the files


def _section(out: Path, counts: Counter[str]) -> Iterator[str]:
    """The lines of YAML; paths as JSON, which YAML reads too."""
    related = "related" if counts["related"] else "[]"
    files = [str(out)] + ([str(interactions_file(out))] if counts["interactions"] else [])
    yield ""
    yield f"`mufin inspect {shlex.join(files)} --write params.yaml` sets in params.yaml:"
    yield "download:"
    yield "  source: catalog"
    yield f"  location: {json.dumps(str(out), ensure_ascii=False)}"
    yield "  columns:"
    yield "    id: id"
    yield "    title: title"
    yield "    images: images"
    yield f"    related: {related}"
    yield "    category: category"
    yield "    attributes: []"
    yield "    texts: []"
    if counts["interactions"]:
        beside = str(interactions_file(out))
        yield "  interactions:"
        yield f"    location: {json.dumps(beside, ensure_ascii=False)}"
        yield "    basket: basket"
        yield "    item: item"
        yield f"    time: {'time' if counts['timed'] else 'null'}"
        yield "    weight: weight"
