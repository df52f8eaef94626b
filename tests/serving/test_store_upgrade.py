"""A store of live products that an older mufin wrote."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from mufin.errors import MufinError
from mufin.serving import store_file
from mufin.serving.live_product import LiveProduct
from mufin.serving.store import ProductStore

# What version 1 wrote for four changes, and for the vectors of one product
OLD = """
BEGIN TRANSACTION;
CREATE TABLE products (
  seq INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, title TEXT NOT NULL, category TEXT NOT NULL,
  attributes TEXT NOT NULL, keys TEXT NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE pictures (key TEXT PRIMARY KEY NOT NULL, content BLOB NOT NULL);
CREATE TABLE used (
  product INTEGER NOT NULL REFERENCES products ON DELETE CASCADE, place INTEGER NOT NULL,
  key TEXT NOT NULL REFERENCES pictures, PRIMARY KEY (product, place)
) WITHOUT ROWID;
CREATE INDEX used_by_key ON used (key);
CREATE TABLE deleted (seq INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE);
CREATE TABLE vectors (
  product INTEGER NOT NULL REFERENCES products ON DELETE CASCADE, model TEXT NOT NULL,
  content BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (product, model)
);
INSERT INTO deleted VALUES (4, 'c');
INSERT INTO pictures VALUES ('2cea274d0bedc39ec4ab6ba9e59ec889', X'70696374757265');
INSERT INTO pictures VALUES ('d9298a10d1b0735837dc4bd85dac641b', X'6F74686572');
INSERT INTO products VALUES
  (2, 'b', '', '[]', '{}', '[]', X'CD2D109ADE55B72ADEDD97DFB8EFBF07'),
  (5, 'a', 'another mug', '["Home"]', '{"price": 9.5, "new": true}',
   '["2cea274d0bedc39ec4ab6ba9e59ec889", "d9298a10d1b0735837dc4bd85dac641b"]',
   X'63A4F54E1F9B0863E5A92F08BC79AD3A');
INSERT INTO used VALUES (5, 0, '2cea274d0bedc39ec4ab6ba9e59ec889');
INSERT INTO used VALUES (5, 1, 'd9298a10d1b0735837dc4bd85dac641b');
INSERT INTO vectors VALUES (5, 'model', X'766563746F72', 460212315);
PRAGMA user_version = 1;
PRAGMA application_id = 1297434185;
COMMIT;
"""
MUG = LiveProduct(
    "a", "another mug", ("Home",), {"price": 9.5, "new": True}, (b"picture", b"other")
)


@pytest.fixture
def old(tmp_path) -> Path:
    path = tmp_path / "store.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(OLD)
    return path


def version_of(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def assert_whole(path: Path) -> None:
    """The store opens and has all that version 1 wrote."""
    with ProductStore(path) as store:
        assert [product.uid for product in store.products()] == ["b", "a"]
        assert store.get("a") == MUG and store.get("b") == LiveProduct("b")
        assert store.deleted() == {"c"} and store.seq == 5
        assert store.vectors("model", ["a", "b"]) == {"a": b"vector"}
    assert version_of(path) == store_file.VERSION == 2


def test_an_older_store_is_upgraded_and_loses_nothing(old):
    assert_whole(old)
    assert_whole(old)
    mug = LiveProduct("a", "a mug", texts=("of steel", "", "of steel"))
    with ProductStore(old) as store:
        store.upsert([mug])
    with ProductStore(old) as store:
        assert store.get("a") == mug


def test_an_upgraded_store_has_the_tables_of_a_new_one(old, tmp_path):
    ProductStore(old).close()
    ProductStore(tmp_path / "new.sqlite").close()
    schemas = []
    for path in (old, tmp_path / "new.sqlite"):
        with contextlib.closing(sqlite3.connect(path)) as db:
            schemas.append(db.execute(store_file.SCHEMA).fetchall())
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize("statement", range(4))
def test_a_kill_in_the_upgrade_leaves_one_of_the_two_versions(old, monkeypatch, statement):
    real = store_file._upgrade
    left = iter(range(statement))

    def dying(db: sqlite3.Connection) -> None:
        die = lambda _: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        db.set_trace_callback(die)
        real(db)

    if not (pid := os.fork()):
        try:
            monkeypatch.setattr(store_file, "_upgrade", dying)
            ProductStore(old)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert_whole(old)


def test_a_damaged_older_store_stays_as_it_is(old):
    with contextlib.closing(sqlite3.connect(old)) as db:
        db.execute("UPDATE products SET title = 'other' WHERE uid = 'a'")
        db.commit()
    before = old.read_bytes()
    with pytest.raises(MufinError, match="product 'a' has other values"):
        ProductStore(old)
    assert old.read_bytes() == before and version_of(old) == 1
