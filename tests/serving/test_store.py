"""The store of live products against a dict, and beside other threads, processes and programs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mufin.corpus.image_store import key_of
from mufin.errors import MufinError
from mufin.serving.live_product import Change, Delete, LiveProduct, Upsert
from mufin.serving.query import QueryError
from mufin.serving.store import ProductStore
from tests.support.projects import ROOT, environment

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
UIDS = st.sampled_from(["a", "b", "B1", "é", "'; DROP TABLE products; --", "x" * 256])
PRODUCTS = st.builds(
    LiveProduct,
    UIDS,
    TEXT,
    st.lists(TEXT, max_size=3).map(tuple),
    st.dictionaries(
        TEXT.filter(bool),
        st.one_of(TEXT, st.booleans(), st.floats(allow_nan=False, allow_infinity=False)),
        max_size=3,
    ),
    st.lists(st.sampled_from("abc").map(lambda c: c.encode() * 5_000), max_size=3).map(tuple),
    st.lists(TEXT, max_size=3).map(tuple),
)
CHANGES = st.lists(st.one_of(PRODUCTS.map(Upsert), UIDS.map(Delete)), max_size=6)


class Model:
    """What a store must hold: the last change of each uid, in order of change."""

    def __init__(self) -> None:
        self.changes: dict[str, Change] = {}
        self.vectors: dict[tuple[str, str], bytes] = {}
        self.seq = 0

    def apply(self, changes: list[Change]) -> None:
        for change in changes:
            uid = change.uid if isinstance(change, Delete) else change.product.uid
            self.changes.pop(uid, None)
            self.changes[uid] = change
            self.vectors = {at: v for at, v in self.vectors.items() if at[1] != uid}
            self.seq += 1

    def products(self) -> list[LiveProduct]:
        return [c.product for c in self.changes.values() if isinstance(c, Upsert)]


class StoreMachine(RuleBasedStateMachine):
    def __init__(self, folder: Path):
        super().__init__()
        self.path = Path(tempfile.mkdtemp(dir=folder)) / "store.sqlite"
        self.store = ProductStore(self.path)
        self.model = Model()

    @rule(changes=CHANGES)
    def apply(self, changes):
        self.store.apply(changes)
        self.model.apply(changes)

    @rule(products=st.lists(PRODUCTS, max_size=3))
    def upsert(self, products):
        self.store.upsert(products)
        self.model.apply([Upsert(p) for p in products])

    @rule(uids=st.lists(UIDS, max_size=3))
    def delete(self, uids):
        self.store.delete(uids)
        self.model.apply([Delete(uid) for uid in uids])

    @rule(changes=CHANGES)
    def fail_after_changes(self, changes):
        with pytest.raises(AttributeError):
            self.store.apply([*changes, None])

    @rule(model=st.sampled_from("mn"), uid=UIDS, content=st.binary(max_size=5))
    def keep_vectors(self, model, uid, content):
        self.store.keep_vectors(model, {uid: content})
        if isinstance(self.model.changes.get(uid), Upsert):
            self.model.vectors[model, uid] = content

    @rule(keep=st.sets(st.sampled_from("mn")))
    def forget_models(self, keep):
        self.store.forget_models(keep)
        self.model.vectors = {at: v for at, v in self.model.vectors.items() if at[0] in keep}

    @rule()
    def reopen(self):
        self.store.close()
        self.store = ProductStore(self.path)

    @rule()
    def compact(self):
        self.store.compact()

    @invariant()
    def same_content(self):
        expected = self.model.products()
        assert list(self.store.products()) == expected
        assert len(self.store) == len(expected)
        assert self.store.deleted() == {
            c.uid for c in self.model.changes.values() if isinstance(c, Delete)
        }
        assert [c for _, c in self.store.since(0)] == list(self.model.changes.values())
        for uid in self.model.changes:
            product = next((p for p in expected if p.uid == uid), None)
            assert self.store.get(uid) == product
            assert self.store.keys(uid) == tuple(map(key_of, product.pictures if product else ()))

    @invariant()
    def same_pictures_and_vectors(self):
        used = {content for product in self.model.products() for content in product.pictures}
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            assert {content for (content,) in db.execute("SELECT content FROM pictures")} == used
        assert all(self.store.picture(key_of(content)) == content for content in used)
        for model in "mn":
            kept = {uid: v for (name, uid), v in self.model.vectors.items() if name == model}
            assert self.store.vectors(model, [*self.model.changes, "unknown"]) == kept

    @invariant()
    def numbers_rise_with_each_change(self):
        numbers = [number for number, _ in self.store.since(0)]
        assert self.store.seq == self.model.seq == max(numbers, default=0)
        assert numbers == sorted(set(numbers))
        for number in numbers:
            assert [n for n, _ in self.store.since(number)] == [n for n in numbers if n > number]

    def teardown(self) -> None:
        self.store.close()


def test_any_order_of_calls_is_as_a_dict(tmp_path):
    run_state_machine_as_test(
        lambda: StoreMachine(tmp_path),
        settings=settings(max_examples=60, stateful_step_count=20, deadline=None),
    )


@pytest.fixture
def store(tmp_path):
    with ProductStore(tmp_path / "folder" / "store.sqlite") as opened:
        yield opened


def test_every_commit_waits_for_the_disk(store):
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_compaction_makes_the_file_smaller(store):
    store.upsert([LiveProduct(f"P{i}", pictures=(os.urandom(50_000),)) for i in range(100)])
    store.compact()
    before = size(store.path)
    store.delete([f"P{i}" for i in range(1, 100)])
    store.compact()
    assert before > 5_000_000 and size(store.path) < 150_000
    assert [p.uid for p in store.products()] == ["P0"]


def size(path: Path) -> int:
    """Bytes of the database and its log."""
    return sum(p.stat().st_size for p in path.parent.glob(path.name + "*"))


def test_compaction_names_a_program_that_reads(store):
    store._db.execute("PRAGMA busy_timeout = 50")
    store.upsert([LiveProduct("a")])
    reader = sqlite3.connect(store.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM products").fetchall()
    store.upsert([LiveProduct("b")])
    with pytest.raises(MufinError, match="another program"):
        store.compact()
    reader.close()
    store.compact()
    assert [p.uid for p in store.products()] == ["a", "b"]


def test_a_program_that_writes_for_long_is_a_sentence(store):
    store._db.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(MufinError, match="cannot be written .*locked.*; another program has"):
        store.upsert([LiveProduct("a")])
    other.close()
    store.upsert([LiveProduct("a")])
    assert len(store) == 1


def test_vectors_of_an_older_product_are_not_kept(store):
    store.upsert([LiveProduct("a"), LiveProduct("b")])
    before = store.seq
    store.upsert([LiveProduct("a", "other title")])
    store.keep_vectors("model", {"a": b"old", "b": b"vector"}, as_of=before)
    assert store.vectors("model", ["a", "b"]) == {"b": b"vector"}


def test_products_changed_while_listed_do_not_come_twice(store):
    store.upsert([LiveProduct(uid) for uid in "abc"])
    listed = []
    for product in store.products():
        listed.append(product.uid)
        store.upsert([LiveProduct(product.uid, "again"), LiveProduct("c", "again")])
        store.delete(["b"])
    assert listed == ["a"]


def test_a_uid_that_no_product_can_have_is_not_found(store):
    assert store.get("\ud800") is store.picture("\ud800") is store.get("") is None
    assert store.keys("\ud800") == () and store.vectors("m", ["\ud800"]) == {}
    with pytest.raises(QueryError, match="uid"):
        store.delete(["\ud800"])


def test_threads_take_turns(store):
    def work(name: str) -> None:
        for i in range(30):
            store.apply([Upsert(LiveProduct(f"{name}{i}")), Upsert(LiveProduct("shared", name))])
            assert store.get(f"{name}{i}") is not None and len(store) > 0

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == 4 * 30 + 1 and store.seq == 2 * 4 * 30


def test_a_closed_store_says_so(store):
    store.close()
    store.close()
    with pytest.raises(MufinError, match="was closed"):
        store.upsert([LiveProduct("a")])
    with pytest.raises(MufinError, match="was closed"):
        next(store.products())


# A second process

HOLD = """
import sys
from mufin.serving.store import ProductStore
store = ProductStore(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    path = tmp_path / "store.sqlite"
    words = [sys.executable, "-c", HOLD, str(path)]
    first = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(PYTHONPATH=str(ROOT)),
    )
    assert first.stdout.readline() == b"open\n"
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        with pytest.raises(MufinError, match=f"in use by a server .process {first.pid} on "):
            ProductStore(name)
    first.kill()
    first.wait()
    first.stdin.close()
    first.stdout.close()
    with ProductStore(path) as store:
        assert len(store) == 0


def test_a_second_store_in_one_process_is_refused(store):
    with pytest.raises(MufinError, match=f"in use by a server .process {os.getpid()} on "):
        ProductStore(store.path)
    store.upsert([LiveProduct("a")])


def test_a_closed_store_leaves_one_file(store):
    store.upsert([LiveProduct("a", pictures=(b"picture",))])
    store.close()
    assert [p.name for p in store.path.parent.iterdir()] == ["store.sqlite"]
