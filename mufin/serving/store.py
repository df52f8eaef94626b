"""The durable store of products that were added, changed or deleted while the server runs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from mufin.corpus.image_store import key_of
from mufin.errors import MufinError, shown
from mufin.serving import store_file, store_rows
from mufin.serving.live_product import Change, Delete, LiveProduct, Upsert


class ProductStore:
    """Products by uid in one SQLite file, with their pictures and a cache of their vectors.

    A method that changes something is one transaction, and returns when it is on the disk: the
    change then survives a kill of the process and a loss of power. Where it raises MufinError,
    nothing was changed, and the store can be used as before. A process locks the store while it is
    open. All methods may be called from any thread; they take turns.

    A picture is stored once for all products that have it, and goes with the last of them.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path).resolve()
        self._turn = threading.RLock()
        self._file = store_file.lock(self.path)
        self._db: sqlite3.Connection | None = None  # None: closed
        try:
            self._db = store_file.connect(self.path)
        finally:
            if self._db is None:
                store_file.unlock(self.path, self._file)

    def upsert(self, products: Sequence[LiveProduct]) -> None:
        """Adds products, or replaces those of the same uid."""
        self.apply([Upsert(product) for product in products])

    def delete(self, uids: Sequence[str]) -> None:
        """Deletes products, and remembers their uids until they are added again."""
        self.apply([Delete(uid) for uid in uids])

    def apply(self, changes: Sequence[Change]) -> None:
        """Makes all the changes, in order, or none of them."""
        if not changes:
            return
        released: set[str] = set()  # keys of pictures that some product may have been the last of
        with self._transaction() as db:
            seq = store_rows.last(db)
            for number, change in enumerate(changes, seq + 1):
                uid = change.uid if isinstance(change, Delete) else change.product.uid
                released |= store_rows.remove(db, uid)
                if isinstance(change, Delete):
                    db.execute("INSERT INTO deleted VALUES (?, ?)", (number, uid))
                else:
                    store_rows.insert(db, number, change.product)
            db.executemany(
                "DELETE FROM pictures WHERE key = ? "
                "AND NOT EXISTS (SELECT 1 FROM used WHERE used.key = pictures.key)",
                [(key,) for key in released],
            )

    def products(self) -> Iterator[LiveProduct]:
        """All products in the order of their last change, one at a time.

        Products that are changed meanwhile are left out; `since` has them.
        """
        for _, change in self._changes(0, ("products",)):
            if isinstance(change, Upsert):
                yield change.product

    def since(self, seq: int) -> Iterator[tuple[int, Change]]:
        """The last change of each product after change number `seq`, in order, with its number."""
        return self._changes(seq, ("products", "deleted"))

    @property
    def seq(self) -> int:
        """The number of the last change, 0 if there was none."""
        with self._reading() as db:
            return store_rows.last(db)

    def get(self, uid: str) -> LiveProduct | None:
        """The product of a uid, None if the store has none."""
        with self._reading() as db:
            row = store_rows.found(db, "SELECT * FROM products WHERE uid = ?", uid)
            return self._product(db, row) if row else None

    def keys(self, uid: str) -> tuple[str, ...]:
        """The keys of the pictures of a product, without their bytes."""
        with self._reading() as db:
            row = store_rows.found(db, "SELECT keys FROM products WHERE uid = ?", uid)
            return tuple(json.loads(row[0])) if row else ()

    def picture(self, key: str) -> bytes | None:
        """The bytes of a picture; raises ArtifactError if they are damaged."""
        with self._reading() as db:
            return self._picture(db, key)

    def deleted(self) -> set[str]:
        """The uids that were deleted and not added again."""
        with self._reading() as db:
            return {uid for (uid,) in db.execute("SELECT uid FROM deleted")}

    def __len__(self) -> int:
        with self._reading() as db:
            return db.execute("SELECT count(*) FROM products").fetchone()[0]

    def vectors(self, model: str, uids: Sequence[str]) -> dict[str, bytes]:
        """What `keep_vectors` kept of these products; without those that changed since."""
        query = (
            "SELECT content, crc FROM products JOIN vectors ON product = seq "
            "WHERE uid = ? AND model = ?"
        )
        found = {}
        with self._reading() as db:
            for uid in uids:
                row = store_rows.found(db, query, uid, model)
                if row and zlib.crc32(row[0]) == row[1]:  # else damaged: computed again
                    found[uid] = row[0]
        return found

    def keep_vectors(
        self, model: str, vectors: Mapping[str, bytes], as_of: int | None = None
    ) -> None:
        """Keeps bytes per product of the store, such as its vectors, until the product changes.

        They were computed from the products as they were at change number `as_of` (`seq`);
        products that changed later are left out. Without it they are of the products as they are.
        """
        query = "INSERT OR REPLACE INTO vectors SELECT seq, ?, ?, ? FROM products WHERE uid = ?"
        with self._transaction() as db:
            last = store_rows.last(db) if as_of is None else as_of
            db.executemany(
                f"{query} AND seq <= ?",
                [(model, v, zlib.crc32(v), uid, last) for uid, v in vectors.items()],
            )

    def forget_models(self, keep: Collection[str]) -> None:
        """Drops the vectors of all models but these."""
        with self._transaction() as db:
            models = {name for (name,) in db.execute("SELECT DISTINCT model FROM vectors")}
            gone = [(name,) for name in models - set(keep)]
            db.executemany("DELETE FROM vectors WHERE model = ?", gone)

    def free_share(self) -> float:
        """The share of the file that holds nothing, [0, 1)."""
        with self._reading() as db:
            free, pages = (
                db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("freelist_count", "page_count")
            )
        return free / max(pages, 1)

    def compact(self) -> None:
        """Gives the space of what was deleted back to the disk.

        Needs as much free space as the store will take, on its disk and in SQLITE_TMPDIR.
        """
        with self._reading("compacted") as db:
            db.execute("VACUUM")
            busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise MufinError(
                    f"{self.path} cannot be made smaller now, because another program "
                    "reads it; end that one, and try again"
                )

    def close(self) -> None:
        """Closes and unlocks the store."""
        with self._turn:
            if self._db is not None:
                self._db.close()
                store_file.unlock(self.path, self._file)
            self._db = None

    def __enter__(self) -> ProductStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _reading(self, done: str = "read") -> Iterator[sqlite3.Connection]:
        with self._turn, store_file.sentences(self.path, done):
            if self._db is None:
                raise MufinError(f"{self.path} was closed; open the store again")
            yield self._db

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading("written") as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite has rolled back already after some errors
                    db.execute("ROLLBACK")
                raise

    def _changes(self, seq: int, tables: tuple[str, ...]) -> Iterator[tuple[int, Change]]:
        """Changes up to the last one of now; no lock is held, and nothing read ahead, between."""
        last, change = self.seq, None
        while (found := self._next(seq, last, tables)) is not None:
            seq, change = found
            yield seq, change

    def _next(self, seq: int, last: int, tables: tuple[str, ...]) -> tuple[int, Change] | None:
        """The first change after `seq`, if it is none after `last`."""
        with self._reading() as db:
            first = None
            for table in tables:
                row = db.execute(
                    f"SELECT * FROM {table} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1",
                    (seq, last),
                ).fetchone()
                if row and (first is None or row[0] < first[0]):
                    first = row
            if first is None:
                return None
            if len(first) == 2:  # of the table `deleted`
                return first[0], Delete(first[1])
            return first[0], Upsert(self._product(db, first))

    def _product(self, db: sqlite3.Connection, row: tuple) -> LiveProduct:
        *values, expected = row
        seq, uid, title, category, attributes, keys = values
        texts = store_rows.texts_of(db, seq)
        if store_file.digest(tuple(values), texts) != expected:
            raise store_file.damaged(self.path, f"product {shown(uid)} has other values")
        pictures = []
        for key in json.loads(keys):
            if (content := self._picture(db, key)) is None:
                raise store_file.damaged(self.path, f"product {shown(uid)} lacks a picture")
            pictures.append(content)
        return LiveProduct(
            uid,
            title,
            tuple(json.loads(category)),
            json.loads(attributes),
            tuple(pictures),
            () if texts is None else tuple(json.loads(texts)),
        )

    def _picture(self, db: sqlite3.Connection, key: str) -> bytes | None:
        row = store_rows.found(db, "SELECT content FROM pictures WHERE key = ?", key)
        if row is None:
            return None
        if key_of(row[0]) != key:
            raise store_file.damaged(self.path, f"the picture {key} has other bytes")
        return row[0]
