"""Rows of a product store: what a change writes and removes, inside of a transaction."""

from __future__ import annotations

import json
import sqlite3

from mufin.corpus.image_store import key_of
from mufin.serving import store_file
from mufin.serving.live_product import LiveProduct


def found(db: sqlite3.Connection, query: str, *values: str) -> tuple | None:
    """The first row; None also for half characters (surrogates), which no text in the store has."""
    try:
        return db.execute(query, values).fetchone()
    except UnicodeEncodeError:
        return None


def last(db: sqlite3.Connection) -> int:
    """The number of the last change: its row is never removed without a later one."""
    of_tables = [
        db.execute(f"SELECT max(seq) FROM {table}").fetchone()[0] or 0
        for table in ("products", "deleted")
    ]
    return max(of_tables)


def remove(db: sqlite3.Connection, uid: str) -> set[str]:
    """Removes all rows of a uid; returns the keys of its pictures, whose bytes stay."""
    db.execute("DELETE FROM deleted WHERE uid = ?", (uid,))
    row = db.execute("SELECT seq, keys FROM products WHERE uid = ?", (uid,)).fetchone()
    if row is None:
        return set()
    # With its rows of `texts`, `used` and `vectors`
    db.execute("DELETE FROM products WHERE seq = ?", row[:1])
    return set(json.loads(row[1]))


def insert(db: sqlite3.Connection, seq: int, product: LiveProduct) -> None:
    """Adds the rows of a product, as change number `seq`."""
    keys = [key_of(content) for content in product.pictures]
    lists = [_json(value) for value in (product.category, product.attributes, keys)]
    row = (seq, product.uid, product.title, *lists)
    texts = _json(product.texts) if product.texts else None
    digest = store_file.digest(row, texts)
    db.execute("INSERT INTO products VALUES (?,?,?,?,?,?,?)", (*row, digest))
    if texts is not None:
        db.execute("INSERT INTO texts VALUES (?, ?)", (seq, texts))
    pairs = list(zip(keys, product.pictures))
    db.executemany("INSERT OR IGNORE INTO pictures VALUES (?, ?)", pairs)
    db.executemany(
        "INSERT INTO used VALUES (?, ?, ?)", [(seq, place, key) for place, key in enumerate(keys)]
    )


def texts_of(db: sqlite3.Connection, seq: int) -> str | None:
    """The JSON of the texts beside the title of the product in row `seq`; None if it has none."""
    row = db.execute("SELECT content FROM texts WHERE product = ?", (seq,)).fetchone()
    return None if row is None else row[0]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
