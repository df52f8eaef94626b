"""Amazon's product metadata and reviews, in the releases of 2014, 2018 and 2023.

MM-AmazonTitles-300K was curated from the metadata of Ni et al. 2018 (MUFIN Sec. 4, Datasets;
App. B). In the release of 2023 (Hou et al. 2024) no product has relations: they come from reviews.
"""

from __future__ import annotations

import ast
import contextlib
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mufin.artifacts.tables import SCHEMAS
from mufin.catalogs.bad_rows import BadRow, BadRows
from mufin.catalogs.cells import NULLS, ids_of, text_of, texts_of, time_of, title_of, uid_of
from mufin.catalogs.columnar import first_filled, lengths_of, lists_of, stripped
from mufin.catalogs.forms.further_texts import FurtherTexts
from mufin.catalogs.forms.tables import Table, parsed, rows_by_name, take_texts
from mufin.catalogs.json_blocks import BLOCK, in_order, table_of
from mufin.catalogs.json_rows import form_of, json_rows, objects_of
from mufin.catalogs.notes import Notes
from mufin.catalogs.opening import Part, encoding_of, opened, parts_of
from mufin.catalogs.product import Product
from mufin.catalogs.rows import kind_of, rows_of, rows_of_part
from mufin.catalogs.text_files import lines_in, lines_of, utf8_blocks
from mufin.catalogs.thumbnails import without_size, without_sizes
from mufin.errors import shown

METADATA_2023 = Table(
    "Amazon's metadata of 2023",
    {
        "id": ("parent_asin",),
        "title": ("title",),
        "images": ("images",),
        "main": ("main_category",),
        "categories": ("categories",),
        "together": ("bought_together",),
    },
    ("id", "title"),
    "give meta_<category>.jsonl.gz, or the Parquet files of raw_meta_<category>",
    ("user_id",),
)
REVIEWS = Table(
    "Amazon's reviews",
    {
        "user": ("user_id", "reviewerID"),
        "item": ("parent_asin", "asin"),
        "time": ("timestamp", "unixReviewTime"),
    },
    ("user", "item", "time"),
    "give <category>.jsonl.gz, or the Parquet files of raw_review_<category>",
)
SIGNS = ["main_category", "user_id", "rating"]  # columns that tell metadata from reviews
COLUMNS_2023 = [*(names[0] for names in METADATA_2023.columns.values()), *SIGNS]
COLUMNS_OF_REVIEWS = [*(name for names in REVIEWS.columns.values() for name in names), *SIGNS]

IMAGES_2018 = ("imageURLHighRes", "imageURL", "image")
COLUMNS_2018 = pa.schema(
    [("asin", pa.string()), ("title", pa.string())]
    + [(name, pa.list_(pa.string())) for name in (*IMAGES_2018, "also_buy", "category")]
)

R = TypeVar("R")
Item = dict[str, object]


def products_2018(
    files: list[Path],
    notes: Notes,
    *,
    encoding: str | None = None,
    bad: BadRows | None = None,
    texts: Sequence[str] = (),
) -> Iterator[Product]:
    """The products of metadata files of Ni et al. 2018: one JSON object per line.

    Its older releases name the pictures `image`; newer ones have `imageURL` (thumbnails) and
    `imageURLHighRes`. `texts` are columns of texts beside the title, such as `description` and
    `feature`.
    """
    further = FurtherTexts(texts, notes)
    for path in files:
        rows = rows_of(path, notes, encoding=encoding, bad=bad)
        yield from parsed(_counted(rows, path, bad), bad, partial(_of_2018, further=further))
    further.check()


def tables_2018(
    files: list[Path], notes: Notes, *, encoding: str | None = None, bad: BadRows | None = None
) -> Iterator[Product | pa.Table]:
    """As `products_2018`, in tables with the schema of products.parquet where a block is clean.

    All images in them are URLs.
    """
    for path in files:
        for part in parts_of(path):
            if not _in_plain_lines(part, encoding):
                rows = rows_of_part(part, notes, encoding=encoding, bad=bad)
                yield from parsed(_counted(rows, path, bad), bad, _of_2018)
                continue
            number = 1  # of the first line of the block
            with (
                utf8_blocks(part, BLOCK) as blocks,
                contextlib.closing(in_order(_with_table, blocks)) as read,
            ):
                for block, table in read:
                    if table is None:
                        lines = lines_in(block, part.shown, number)
                        rows = objects_of(lines, part.shown, bad or BadRows(notes))
                        yield from parsed(_counted(rows, path, bad), bad, _of_2018)
                        number += sum(1 for _ in io.TextIOWrapper(io.BytesIO(block), "utf-8"))
                        continue
                    if bad is not None:
                        bad.rows += len(table)
                    number += len(table)
                    yield table


def _in_plain_lines(part: Part, encoding: str | None) -> bool:
    """Whether a file is UTF-8, of JSON lines, and its names have no blanks around them."""
    with opened(part) as file:
        name = encoding_of(file.read(4), encoding)
    if name not in ("utf-8", "utf-8-sig") or kind_of(part, encoding) != "json":
        return False
    if form_of(part, (), encoding) != "lines":
        return False
    first = next(json_rows(part, (), encoding, BadRows(Notes(), 1.0)), None)
    return first is not None and all(name == name.strip() for name in first[1])


def _with_table(block: bytes) -> tuple[bytes, pa.Table | None]:
    table = table_of(block, COLUMNS_2018)
    return block, None if table is None else _cleaned_2018(table)


def _cleaned_2018(table: pa.Table) -> pa.Table | None:
    """What `_of_2018` makes of the rows; None where it might make something else of one."""
    columns = {name: table[name].combine_chunks() for name in table.schema.names}
    uid = columns["asin"]
    # Without blanks and `+`: a text in which `uid_of` changes nothing and finds no fault.
    if uid.null_count or not pc.all(pc.match_substring_regex(uid, "^[!-*,-~]+$")).as_py():
        return None
    images = stripped(first_filled([columns[name] for name in IMAGES_2018]))
    urls = images.flatten()
    if not pc.all(pc.match_substring_regex(urls, "^https?://[!-~]*$"), min_count=0).as_py():
        return None
    plain = without_sizes(urls)
    empty = np.zeros(len(table), np.int64)
    return pa.table(
        {
            "uid": uid,
            "title": pc.fill_null(columns["title"], ""),
            "images": lists_of(plain, lengths_of(images)),
            "related": stripped(columns["also_buy"]),
            "category": stripped(columns["category"]),
            "weights": lists_of(pa.array([], pa.float32()), empty),
            "other_ids": lists_of(pa.array([], pa.string()), empty),
        },
        schema=SCHEMAS["raw_products"],
    )


def _of_2018(path: Path, number: int, row: Item, further: FurtherTexts | None = None) -> Product:
    images = row.get("imageURLHighRes") or row.get("imageURL") or row.get("image") or []
    return Product(
        uid_of(row.get("asin"), path, number),
        title_of(row.get("title"), path, number),
        [without_size(url) for url in texts_of(images, path, number, "image")],
        texts_of(row.get("also_buy"), path, number, "also_buy"),
        texts_of(row.get("category"), path, number, "category"),
        texts=further.of(row, path, number) if further else [],
    )


def products_2014(
    files: list[Path],
    notes: Notes,
    *,
    encoding: str | None = None,
    bad: BadRows | None = None,
    texts: Sequence[str] = (),
) -> Iterator[Product]:
    """The products of metadata files of the 2014 release: one Python literal per line.

    It has one picture per product (`imUrl`), relations in `related: {also_bought: [...]}` and a
    list of category paths, of which the first is taken. `texts` are columns of texts beside the
    title, such as `description`.
    """
    further = FurtherTexts(texts, notes)
    for path in files:
        lines = _counted(lines_of(path, encoding), path, bad)
        yield from parsed(lines, bad, partial(_of_2014, further))
    further.check()


def _of_2014(further: FurtherTexts, path: Path, number: int, line: str) -> Product:
    try:
        row = ast.literal_eval(line)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise BadRow(
            f"{path} line {number} is not a Python literal of a product; "
            "set download.source to the release of this file"
        )
    related, categories = row.get("related") or {}, row.get("categories") or [[]]
    if not isinstance(related, dict) or not isinstance(categories, list):
        raise BadRow(
            f"{path} line {number} has {shown(related)} in related and {shown(categories)} in "
            "categories, not an object and a list; set download.source to the release of "
            "this file"
        )
    return Product(
        uid_of(row.get("asin"), path, number),
        title_of(row.get("title"), path, number),
        [without_size(url) for url in texts_of(row.get("imUrl"), path, number, "imUrl")],
        texts_of(related.get("also_bought"), path, number, "also_bought"),
        texts_of(categories[0], path, number, "categories"),
        texts=further.of(row, path, number),
    )


def products_2023(
    files: list[Path],
    notes: Notes,
    *,
    encoding: str | None = None,
    bad: BadRows | None = None,
    texts: Sequence[str] = (),
) -> Iterator[Product]:
    """The products of metadata files of 2023: JSON lines, or Parquet as on Hugging Face.

    A product is a parent_asin. Of each picture the largest is taken: hi_res, else large, else thumb
    without its size. `texts` are columns of texts beside the title, such as `features` and
    `description`.
    """
    columns = [*COLUMNS_2023, *texts]
    rows = rows_by_name(files, METADATA_2023, notes, encoding, bad, columns, texts=texts)
    yield from parsed(rows, bad, partial(_of_2023, notes))


def _of_2023(notes: Notes, path: Path, number: int, row: Item) -> Product:
    main = title_of(row.get("main"), path, number, "main_category", notes)
    categories = texts_of(row.get("categories"), path, number, "categories", notes)
    return Product(
        uid_of(row.get("id"), path, number, "parent_asin", notes),
        title_of(row.get("title"), path, number, "title", notes),
        list(dict.fromkeys(pictures(row.get("images"), path, number))),
        ids_of(row.get("together"), path, number, "bought_together", notes),
        categories or ([main] if main else []),
        texts=take_texts(row, path, number, notes),
    )


def pictures(value: object, path: Path, number: int) -> list[str]:
    """The largest of each picture, of a list of objects or (Hugging Face) an object of lists."""
    if isinstance(value, dict):
        columns = {key: items for key, items in value.items() if isinstance(items, list)}
        most = max(map(len, columns.values()), default=0)
        value = [
            {key: items[at] for key, items in columns.items() if at < len(items)}
            for at in range(most)
        ]
    if not isinstance(value, list | None):
        raise BadRow(f"{path} line {number} has {shown(value)} in images; it must be a list")
    out = []
    for sizes in value or []:
        if not isinstance(sizes, dict):
            raise BadRow(f"{path} line {number} has {shown(sizes)} in images, not an object")
        thumb = without_size(_url(sizes.get("thumb")))
        if url := _url(sizes.get("hi_res")) or _url(sizes.get("large")) or thumb:
            out.append(url)
    return out


def _url(value: object) -> str:
    text = text_of(value).strip()
    return "" if text in NULLS else text


def interactions(
    files: list[Path], notes: Notes, *, encoding: str | None = None, bad: BadRows | None = None
) -> Iterator[tuple[str, str, float | None, float]]:
    """(user, product, seconds, 1) of each review; a user is one basket.

    All ratings count: a review says that the product was chosen, whatever it was like. The product
    is the parent_asin where there is one (2023), as in the metadata. Also the lists of ratings
    alone (CSV) are read.
    """
    rows = rows_by_name(files, REVIEWS, notes, encoding, bad, COLUMNS_OF_REVIEWS)
    yield from parsed(rows, bad, partial(_review, notes))


def _review(
    notes: Notes, path: Path, number: int, row: Item
) -> tuple[str, str, float | None, float]:
    return (
        uid_of(row.get("user"), path, number, "user_id", notes),
        uid_of(row.get("item"), path, number, "asin", notes),
        time_of(row.get("time"), path, number, "timestamp", notes),
        1.0,
    )


def _counted(
    rows: Iterator[tuple[int, R]], path: Path, bad: BadRows | None
) -> Iterator[tuple[Path, int, R]]:
    """(file, line, row) of each row, counted in `bad`, as `rows_by_name` does."""
    for number, row in rows:
        if bad is not None:
            bad.rows += 1
        yield path, number, row
