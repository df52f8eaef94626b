"""The store of live products on a full disk, and files that are no store or a damaged one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mufin.errors import ArtifactError, MufinError, sentence
from mufin.serving.live_product import LiveProduct
from mufin.serving.store import ProductStore
from mufin.serving.store_file import VERSION
from tests.pipeline.test_disk_full import small_disk
from tests.support.projects import ROOT, environment


def products(count: int, picture: int = 3_000) -> list[LiveProduct]:
    """Products with random pictures of so many bytes."""
    rng = random.Random(count)
    return [
        LiveProduct(f"P{i}", f"title {i}", ("Home",), {"n": i}, (rng.randbytes(picture),))
        for i in range(count)
    ]


def refusal(path: Path) -> str:
    """The sentence with which a store is refused; its files must stay as they are."""
    before = content(path)
    with pytest.raises(MufinError) as error:
        ProductStore(path)
    assert content(path) == before
    said = sentence(str(error.value))
    assert said.startswith(f"{path} ") and ";" in said and "..." not in said
    return said


def content(path: Path) -> dict[str, bytes]:
    """The bytes of the database and its log; SQLite makes an empty log to read a database."""
    files = {name: Path(f"{path}{name}") for name in ("", "-wal")}
    return {name: p.read_bytes() for name, p in files.items() if p.is_file() and p.stat().st_size}


# Full disks


def fill_up(store: ProductStore) -> tuple[list[LiveProduct], str]:
    """Adds products until the store refuses one; those before, and the sentence."""
    done: list[LiveProduct] = []
    for product in products(1000, picture=50_000):
        try:
            store.upsert([product])
        except MufinError as error:
            return done, sentence(str(error))
        done.append(product)
    raise AssertionError("the disk was not full")


def test_a_full_disk_is_a_sentence_and_the_store_works_on(tmp_path):
    with small_disk(tmp_path / "disk", 2**21) as place:
        with ProductStore(place / "store.sqlite") as store:
            done, said = fill_up(store)
            assert "cannot be written (database or disk is full); nothing was changed" in said
            assert len(done) > 3 and list(store.products()) == done
            for _ in range(3):
                with pytest.raises(MufinError, match="full"):
                    store.upsert(products(20, picture=100_000))
            assert list(store.products()) == done
            subprocess.run(["mount", "-o", "remount,size=64M", str(place)], check=True)
            store.upsert([LiveProduct("last")])
        with ProductStore(place / "store.sqlite") as store:
            assert list(store.products()) == [*done, LiveProduct("last")]


def test_a_store_on_a_full_disk_names_the_remedy_and_opens_later(tmp_path):
    with small_disk(tmp_path / "disk", 2**21) as place:
        with ProductStore(place / "store.sqlite") as store:
            store.upsert([LiveProduct("a")])
        with contextlib.suppress(OSError), open(place / "filler", "wb", buffering=0) as file:
            while True:
                file.write(b"0" * 4096)
        with pytest.raises(MufinError, match=r"cannot be opened \(.*\); .*free space on its disk"):
            ProductStore(place / "store.sqlite")
        (place / "filler").unlink()
        with ProductStore(place / "store.sqlite") as store:
            assert list(store.products()) == [LiveProduct("a")]


def test_a_value_larger_than_sqlite_takes_is_a_sentence(tmp_path):
    with ProductStore(tmp_path / "store.sqlite") as store:
        store._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)  # in place of a gigabyte
        for product in (LiveProduct("b", "x" * 2000), LiveProduct("b", pictures=(b"x" * 2000,))):
            with pytest.raises(MufinError, match="too large, shorten it"):
                store.upsert([LiveProduct("a"), product])
        assert len(store) == 0
        store.upsert([LiveProduct("a")])


def test_no_store_is_left_half_created_on_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", 2**16) as place:
        (place / "filler").write_bytes(b"0" * (2**16 - 4096 * 3))
        with pytest.raises(MufinError, match="cannot be opened"):
            ProductStore(place / "store.sqlite")
        assert [p.name for p in place.iterdir()] == ["filler"]
        (place / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=8M", str(place)], check=True)
        ProductStore(place / "store.sqlite").close()


def test_compaction_on_a_full_disk_keeps_everything(tmp_path):
    with small_disk(tmp_path / "disk", 2**21) as place:
        with ProductStore(place / "store.sqlite") as store:
            done, _ = fill_up(store)
            with contextlib.suppress(MufinError):
                store.compact()
            assert list(store.products()) == done
        with ProductStore(place / "store.sqlite") as store:
            assert list(store.products()) == done


def test_a_disk_that_is_read_only_is_a_sentence(tmp_path):
    with small_disk(tmp_path / "disk", 2**22) as place:
        ProductStore(place / "store.sqlite").close()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert "cannot be opened (Read-only file system); " in refusal(place / "store.sqlite")


LIMITED = """
import json, resource, sys
from mufin.errors import MufinError
from mufin.serving.live_product import LiveProduct
from mufin.serving.store import ProductStore
from tests.serving.test_store_damage import fill_up
store = ProductStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, -1))     # Python ignores SIGXFSZ
done, said = fill_up(store)
assert list(store.products()) == done
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
store.upsert([LiveProduct("last")])
assert list(store.products()) == [*done, LiveProduct("last")]
print(json.dumps([len(done), said]))
"""


def test_a_file_that_may_not_grow_is_a_sentence(tmp_path):
    words = [sys.executable, "-c", LIMITED, str(tmp_path / "store.sqlite")]
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment(PYTHONPATH=str(ROOT))
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, said = json.loads(done.stdout)
    assert count > 3 and "store.sqlite cannot be written (" in said and "; nothing was" in said
    with ProductStore(tmp_path / "store.sqlite") as store:
        assert len(store) == count + 1


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be opened (File exists)" in refusal(tmp_path / "file" / "store.sqlite")
    assert "is a folder" in refusal(tmp_path)


# Files that are no store


@pytest.mark.parametrize("text", [b"hello", b"{}\n" * 1000, b"SQLite format 3", b"\0" * 5000])
def test_another_file_is_refused_and_kept(tmp_path, text):
    (tmp_path / "file").write_bytes(text)
    assert "is not a store of products (not an SQLite database)" in refusal(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_database_of_another_program_is_refused(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as db:
        db.execute("CREATE TABLE products (uid)")
        db.commit()
    assert "is a database of another program" in refusal(tmp_path / "other")


def altered(path: Path, statement: str) -> Path:
    ProductStore(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()
    return path


@pytest.mark.parametrize(
    "statement,said",
    [
        (
            f"PRAGMA user_version = {VERSION + 1}",
            f"was written by a newer mufin (version {VERSION + 1}",
        ),
        ("PRAGMA user_version = 0", "is damaged (version 0"),
        ("DROP TABLE deleted", "is damaged (it has other tables)"),
        ("CREATE TRIGGER t AFTER INSERT ON products BEGIN SELECT 1; END", "has other tables"),
        ("PRAGMA journal_mode = DELETE", "another kind of log"),
        ("INSERT INTO used VALUES (7, 0, 'key')", "a picture or a product is missing"),
        (
            "INSERT INTO products VALUES (1, 'a', 'b', '[]', '{}', '[]', 'digest')",
            "product 'a' has other values than were written",
        ),
        ("INSERT INTO texts VALUES (7, '[]')", "a picture or a product is missing"),
    ],
)
def test_other_versions_and_tables_are_refused(tmp_path, statement, said):
    assert said in refusal(altered(tmp_path / "store.sqlite", statement))


def test_a_missing_database_beside_its_log_is_refused(tmp_path):
    whole = left_by_a_kill(tmp_path / "whole")
    (tmp_path / "part").mkdir()
    shutil.copy(f"{whole}-wal", tmp_path / "part")
    assert "store.sqlite-wal holds changes to it" in refusal(tmp_path / "part" / "store.sqlite")


def test_an_empty_file_becomes_a_store(tmp_path):
    (tmp_path / "store.sqlite").touch()
    with ProductStore(tmp_path / "store.sqlite") as store:
        assert len(store) == 0


# Damaged bytes


def left_by_a_kill(folder: Path) -> Path:
    """A store whose last changes are in its log alone."""
    folder.mkdir()
    if not (pid := os.fork()):
        try:
            store = ProductStore(folder / "store.sqlite")
            store.upsert(products(20))
            store.keep_vectors("model", {"P1": b"vector" * 100})
            store.compact()
            store.upsert([LiveProduct("late", "in the log", texts=("a text",))])
            store.delete(["P0", "unknown"])
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return folder / "store.sqlite"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return left_by_a_kill(tmp_path_factory.mktemp("whole") / "store")


def opened(path: Path) -> list | None:
    """All that a store holds; None if it was refused, now or while it was read."""
    before = content(path)
    try:
        store = ProductStore(path)
    except MufinError as error:
        assert isinstance(error, ArtifactError) or "newer" in str(error) or "store" in str(error)
        assert content(path) == before
        return None
    try:
        return [list(store.since(0)), store.deleted(), store.vectors("model", ["P1"])]
    except ArtifactError as error:
        assert "is damaged" in str(error)
        return None
    finally:
        with contextlib.suppress(MufinError):
            store.upsert([LiveProduct("more")])
        store.close()


def copied(whole: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{whole}{end}", folder)
    return folder / whole.name


@pytest.mark.parametrize("log", ["log", "no log"])
def test_damaged_bytes_are_refused_or_change_nothing(whole, tmp_path, log):
    rng, refused = random.Random(0), 0
    if log == "no log":  # it hides pages of the database
        whole = copied(whole, tmp_path / "whole")
        ProductStore(whole).close()
        Path(f"{whole}-wal").touch()
    expected = opened(copied(whole, tmp_path / "copy"))
    assert expected is not None and len(expected[0]) == 22
    size = whole.stat().st_size
    places = [*range(100), *(rng.randrange(size) for _ in range(400))]
    for place in places:
        path = copied(whole, tmp_path / "copy")
        data = bytearray(path.read_bytes())
        for at in range(place, min(place + rng.choice([1, 1, 8, 600]), size)):
            data[at] ^= rng.randrange(1, 256)
        path.write_bytes(data)
        found = opened(path)
        if found is not None and found[2] == {}:  # vectors are computed again
            found[2] = expected[2]
        assert found is None or found == expected, place
        refused += found is None
    assert refused > len(places) // 3


def test_a_file_cut_short_is_refused(whole, tmp_path):
    size = whole.stat().st_size
    for length in [*range(1, 4096, 500), *range(4096, size, 4096 * 3 + 77)]:
        path = copied(whole, tmp_path / "copy")
        os.truncate(path, length)
        assert opened(path) is None, length


def test_a_damaged_log_keeps_what_was_before_the_damage(whole, tmp_path):
    expected = opened(copied(whole, tmp_path / "copy"))
    log = Path(f"{whole}-wal")
    states = set()
    for place in range(0, log.stat().st_size, 61):
        path = copied(whole, tmp_path / "copy")
        data = bytearray(log.read_bytes())
        data[place] ^= 255
        Path(f"{path}-wal").write_bytes(data)
        changes, *_ = opened(path)
        states.add(len(changes))
        assert [c for c in changes if c in expected[0]] == expected[0][: len(changes)] or (
            len(changes) in (20, 21)
        )
    assert states <= {20, 21, 22} and 20 in states
