"""The store of live products in a process that is killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mufin.serving import store_file
from mufin.serving.live_product import Change, Delete, LiveProduct, Upsert
from mufin.serving.store import ProductStore
from tests.serving.test_store import Model

TRANSACTIONS = 40  # of a process that nobody kills


def changes_of(number: int) -> list[Change]:
    """The changes of one transaction of the workload."""
    rng = random.Random(number)
    changes: list[Change] = []
    for _ in range(rng.randrange(1, 5)):
        uid = f"P{rng.randrange(12)}"
        pictures = tuple(bytes([rng.randrange(4)]) * 20_000 for _ in range(rng.randrange(3)))
        texts = tuple(f"text {number} {n}" for n in range(rng.randrange(3)))
        product = LiveProduct(uid, f"title {number}", pictures=pictures, texts=texts)
        changes.append(Delete(uid) if rng.random() < 0.3 else Upsert(product))
    return changes


def work(path: Path, first: int, acknowledge: Callable[[int], None], prepare) -> None:
    """Transactions from number `first`, each acknowledged when it is done."""
    store = ProductStore(path)
    acknowledge(first)
    prepare(store)
    for number in range(first, first + TRANSACTIONS):
        store.apply(changes_of(number))
        acknowledge(number + 1)
        if number % 7 == 0:
            store.compact()
        store.keep_vectors("model", {f"P{number % 12}": bytes([number % 256]) * 3000})


def killed(path: Path, first: int, prepare, after: tuple[int, float] | None = None) -> int:
    """Runs the workload in a process that is killed; how many transactions were acknowledged.

    `prepare` kills it, or the caller does: `after` is a number of acknowledgements, and a time in
    seconds to wait after them. It starts with `first` transactions done; -1 if the store was not
    even open.
    """
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            work(path, first, lambda done: os.write(writer, done.to_bytes(4, "little")), prepare)
        finally:  # nothing of pytest runs in this process
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = b""
        if after is not None:
            said = pipe.read(4 * after[0])
            time.sleep(after[1])
            os.kill(pid, signal.SIGKILL)
        said += pipe.read()
    os.waitpid(pid, 0)
    return int.from_bytes(said[-4:], "little") if said else -1


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at_statement(count: int):
    """Kills the process before it runs statement number `count`."""
    left = iter(range(count))
    return lambda store: store._db.set_trace_callback(lambda _: next(left, None) is None and die())


def dies_after_steps(count: int):
    """Kills the process after `count` instructions of one of SQLite's statements."""
    return lambda store: store._db.set_progress_handler(die, count)


def check(path: Path, done: int) -> int:
    """The number of transactions that the store holds, all of them whole: `done`, or one more."""
    for number in (done, done + 1):
        model = Model()
        for i in range(number):
            model.apply(changes_of(i))
        with ProductStore(path) as store:
            if [change for _, change in store.since(0)] == list(model.changes.values()):
                assert store.seq == model.seq
                return number
    raise AssertionError(f"acknowledged {done}, and the store holds something else")


@pytest.mark.parametrize(
    "prepared",
    [
        *[("statement", n) for n in (1, 2, 3, 4, 5, 7, 9, 11, 13, 16, 20, 30, 50, 100, 200, 333)],
        *[("steps", n) for n in (1, 2, 5, 10, 15, 25, 40, 60, 100, 150, 300)],
    ],
    ids=str,
)
def test_a_kill_between_two_steps_loses_nothing(tmp_path, prepared):
    kind, count = prepared
    dies = dies_at_statement if kind == "statement" else dies_after_steps
    path, done = tmp_path / "store.sqlite", 0
    for _ in range(3):  # each process finds what the one before has left
        acknowledged = killed(path, done, dies(count))
        assert done <= acknowledged < done + TRANSACTIONS
        done = check(path, acknowledged)


def test_kills_at_random_moments_lose_nothing(tmp_path):
    path, done, inside = tmp_path / "store.sqlite", 0, 0
    rng = random.Random(0)
    for _ in range(60):
        # Counted from an acknowledgement: a machine may take any time to open the store.
        moment = rng.randrange(TRANSACTIONS // 2), rng.random() * 0.01
        acknowledged = killed(path, done, lambda store: None, after=moment)
        inside += done < acknowledged < done + TRANSACTIONS
        done = check(path, max(done, acknowledged))
    assert inside > 5  # kills in the middle of the workload


@pytest.mark.parametrize("step", ["_create", "_synchronise", "replace"])
@pytest.mark.parametrize("before", [True, False])
def test_a_kill_while_a_store_is_created_leaves_none_or_an_empty_one(
    tmp_path, monkeypatch, step, before
):
    owner = os if step == "replace" else store_file
    real = getattr(owner, step)

    def dying(*arguments):
        if not before:
            real(*arguments)
        die()

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, dying)
        assert killed(tmp_path / "store.sqlite", 0, lambda store: None) == -1
    assert check(tmp_path / "store.sqlite", 0) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["store.sqlite"]
