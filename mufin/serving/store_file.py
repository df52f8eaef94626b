"""The SQLite file of a product store: its lock, its tables, its checks, its errors as sentences."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from mufin.errors import ArtifactError, MufinError, shown

VERSION = 2  # of the tables, in SQLite's user_version; 1 had no table `texts`
PROGRAM = 0x4D554649  # "MUFI", in SQLite's application_id: which program the file belongs to
MAGIC = b"SQLite format 3\0"  # the first bytes of every SQLite database
WAIT = 5.0  # seconds to wait for another program, such as a backup, that holds the database
CACHE = 16_000  # KiB of pages that SQLite keeps in memory
WAL_BYTES = 2**26  # the log is cut to this size after a large transaction

# `seq` numbers all changes. A changed product is a new row, so that the rows of its pictures and
# vectors go with the old one. The rowid of `pictures` keeps their bytes out of the index of keys.
TABLES_1 = """
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
"""
# The texts beside the title, a JSON list; no row for a product without any. So version 2 is version
# 1 and a table: no row is rewritten by the upgrade.
TEXTS = """
CREATE TABLE texts (
  product INTEGER PRIMARY KEY REFERENCES products ON DELETE CASCADE, content TEXT NOT NULL
);
"""
TABLES = {1: TABLES_1, 2: TABLES_1 + TEXTS}  # by version
SCHEMA = "SELECT name, sql FROM sqlite_schema ORDER BY name"


def lock(path: Path) -> int:
    """Locks the store for this process until it ends or calls `unlock`; returns the open file.

    Raises MufinError if a process, also this one, has locked it. The lock is on a file of its own:
    SQLite's locks are lost when anything in the process opens and closes the database itself.
    """
    with sentences(path, "opened"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise MufinError(f"{path} is a folder; give the name of a file")
        while True:
            file = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _take(file, path)
                if _names(_lock_of(path), file):  # else its holder has just removed it
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)


def unlock(path: Path, file: int) -> None:
    """Ends the lock that `lock` returned."""
    with contextlib.suppress(OSError):
        _lock_of(path).unlink(missing_ok=True)
    os.close(file)


def _lock_of(path: Path) -> Path:
    return Path(f"{path}.lock")


def _take(file: int, path: Path) -> None:
    """Locks the open lock file, and writes there by whom."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.read(file, 200).decode(errors="replace") or "unknown"
        raise MufinError(
            f"{path} is in use by a server (process {who}); end it, or give another store"
        ) from None
    with contextlib.suppress(OSError):  # on a full disk; the lock holds without the name too
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()} on {os.uname().nodename}".encode())


def _names(path: Path, file: int) -> bool:
    """Whether `path` is still the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def connect(path: Path) -> sqlite3.Connection:
    """Opens the database, after it was checked, or creates it; the caller holds its lock.

    One of an older version is upgraded. Raises MufinError or ArtifactError, and leaves the file as
    it is, if it is damaged, of another program or of a newer version.
    """
    with sentences(path, "opened"):
        if path.exists() and path.stat().st_size:
            _check(path)
        else:
            _create(path)
        db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # every commit waits for the disk
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA cache_size = -{CACHE}")
            db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            _upgrade(db)
        except BaseException:
            db.close()
            raise
    return db


def _upgrade(db: sqlite3.Connection) -> None:
    """Brings the tables to this version, all or nothing; a file that is read-only is refused."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if db.execute("PRAGMA user_version").fetchone() == (1,):
            db.execute(TEXTS)
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def digest(row: tuple, texts: str | None) -> bytes:
    """A hash of the columns of `products` before `digest`, and of `texts`, if there are any.

    SQLite does not notice changed bytes.
    """
    values = row if texts is None else (*row, texts)
    return hashlib.blake2b(repr(values).encode(), digest_size=16).digest()


@contextlib.contextmanager
def sentences(path: Path, done: str) -> Iterator[None]:
    """Turns errors of SQLite and of the system into MufinError: `path` cannot be `done`."""
    try:
        yield
    # OverflowError for texts of over 2 GB; UnicodeDecodeError where SQLite's own sentence quotes
    # bytes of a damaged table
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        # Errors of Python's module alone have no name
        name = getattr(error, "sqlite_errorname", "")
        undecodable = isinstance(error, UnicodeDecodeError) or str(error).startswith("Could not")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or undecodable:
            raise damaged(path, str(error)) from None
        raise MufinError(f"{path} cannot be {done} ({str(error)[:100]}); {_remedy(name)}") from None
    except OSError as error:
        remedy = "give the name of a file in a folder of a local disk that you may write to"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space on its disk"
        raise MufinError(f"{path} cannot be {done} ({error.strerror or error}); {remedy}") from None


def damaged(path: Path, what: str) -> ArtifactError:
    """The error for a store whose bytes are not those that were written."""
    return ArtifactError(
        f"{path} is damaged ({what[:100]}); put a backup in its place, or move it "
        "away and send its products again"
    )


def _remedy(name: str) -> str:
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return "nothing was changed: free space on its disk, or look for errors of the disk"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another program has locked it: end that one, and try again"
    if name.startswith("SQLITE_TOOBIG"):
        return "nothing was changed: a title, a picture or another value is too large, shorten it"
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return "make the file and its folder writable"
    return "nothing was changed"


def _create(path: Path) -> None:
    """Creates an empty store: under another name, so that no half of one is ever at `path`."""
    if (log := Path(f"{path}-wal")).exists() and log.stat().st_size:
        raise damaged(path, f"it is empty, but {log.name} holds changes to it")
    part = Path(f"{path}.new")
    _unlink(part)
    try:
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(
                f"BEGIN; PRAGMA application_id = {PROGRAM}; PRAGMA user_version = {VERSION}; "
                f"{TABLES[VERSION]} COMMIT"
            )
        _synchronise(part)
        os.replace(part, path)
        _synchronise(path.parent)
    finally:
        _unlink(part)


def _unlink(path: Path) -> None:
    """Removes a database."""
    for end in ("", "-journal", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)


def _synchronise(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _check(path: Path) -> None:
    """Raises MufinError unless the file is a whole store; writes nothing to it or to its log.

    The bytes of pictures are not compared with their keys here, but whenever one is read.
    """
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise MufinError(
                f"{path} is not a store of products (not an SQLite database); give another name"
            )
    # Read-only, because closing a database that is open for writing moves its log into it
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        if db.execute("PRAGMA application_id").fetchone() != (PROGRAM,):
            raise MufinError(f"{path} is a database of another program; give another name")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise MufinError(
                f"{path} was written by a newer mufin (version {version} of the "
                f"tables; this one knows {VERSION}); use that mufin, or give another store"
            )
        if version not in TABLES:
            raise damaged(path, f"version {version} of the tables is unknown")
        if db.execute("PRAGMA journal_mode").fetchone() != ("wal",):  # would ignore its log
            raise damaged(path, "it has another kind of log")
        _check_content(db, path, version)


def _check_content(db: sqlite3.Connection, path: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(TABLES[version])
        if db.execute(SCHEMA).fetchall() != fresh.execute(SCHEMA).fetchall():
            raise damaged(path, "it has other tables")
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise damaged(path, found)
    if db.execute("PRAGMA foreign_key_check").fetchone():
        raise damaged(path, "a picture or a product is missing")
    rows = "SELECT products.*, NULL FROM products"
    if version > 1:
        rows = "SELECT products.*, content FROM products LEFT JOIN texts ON product = seq"
    for *row, expected, texts in db.execute(rows):
        if digest(tuple(row), texts) != expected:
            raise damaged(path, f"product {shown(row[1])} has other values than were written")
