"""Many clients at once on a running server, each of which knows what the right answers are.

python -m benchmarks.soak --folder . --out benchmarks/results/soak.json      (after `dvc repro`)

Starts `mufin serve` on the folder with a store of its own, and sends mixed requests from 32
threads: questions about products of the catalog (whose answers among a fixed set of candidates were
taken before), about titles and pictures, batches, searches, upserts, deletes, and questions about
what the same thread upserted or deleted just before. It counts answers that are wrong, statuses
that are not as expected, and takes the memory of the server twice per second. Ends with exit code 1
if there was any wrong answer or any status 500.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import psutil
import typer
from PIL import Image

from benchmarks.timing import machine
from mufin.artifacts.files import write_json

KNOWN, FIXED, K = 50, 40, 5  # products asked about, candidates whose answers are known, answers
READY = 120  # seconds for the server to load
COLOURS = ("red", "green", "blue", "orange")


@dataclass
class Outcome:
    """What all clients saw."""

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Truth:
    """Products of the catalog, the fixed candidates, and the answers among these."""

    uids: list[str]
    candidates: list[str]
    answers: dict[str, list[str]]


class Client:
    """One thread's requests; it alone changes the products whose uid begins with its name."""

    def __init__(self, number: int, address: str, truth: Truth):
        self.name, self.truth = f"soak-{number}", truth
        self.random, self.number = random.Random(number), number
        self.http = httpx.Client(base_url=address, timeout=60)
        self.mine: dict[str, float] = {}  # uid -> price, of live products that it upserted
        self.outcome = Outcome()

    def run(self, requests: int) -> Outcome:
        """Sends so many requests of random kinds."""
        kinds = [self.known, self.known, self.known, self.title, self.picture, self.batch]
        kinds += [self.search, self.upsert, self.upsert, self.delete, self.own, self.own, self.bad]
        with self.http:
            while self.outcome.kinds.total() < requests:
                kind = self.random.choice(kinds)
                self.outcome.kinds[kind.__name__] += 1
                kind()
        return self.outcome

    def send(self, method: str, path: str, expected: int = 200, **request) -> dict:
        """The answer's JSON; a refusal for want of room is tried again, as its header says."""
        while True:
            start = time.perf_counter()
            response = self.http.request(method, path, **request)
            self.outcome.seconds.append(time.perf_counter() - start)
            self.outcome.statuses[response.status_code] += 1
            if response.status_code != 503:
                break
            time.sleep(float(response.headers["Retry-After"]))
        if response.status_code != expected:
            self.wrong(f"{method} {path}: {response.status_code} {response.text[:200]}")
            return {}
        return response.json() if response.content else {}

    def wrong(self, text: str) -> None:
        self.outcome.wrong.append(f"{self.name}: {text}")

    def ask(self, expected: int = 200, **question) -> list[str] | None:
        got = self.send("POST", "/v1/recommend", expected, json=question)
        return [a["uid"] for a in got["answers"]] if "answers" in got else None

    def check(self, what: str, got: list[str] | None, expected: list[str]) -> None:
        if got is not None and got != expected:
            self.wrong(f"{what}: {got} and not {expected}")

    def known(self) -> None:
        uid = self.random.choice(self.truth.uids)
        got = self.ask(uids=[uid], k=K, candidates=self.truth.candidates)
        self.check(uid, got, self.truth.answers[uid])

    def title(self) -> None:
        got = self.ask(title=f"{self.random.choice(COLOURS)} mug", k=K)
        if got is not None and len(set(got)) != K:
            self.wrong(f"{len(set(got))} answers for a title")

    def picture(self) -> None:
        content = io.BytesIO()
        colour = tuple(self.random.randrange(256) for _ in range(3))
        Image.new("RGB", (64, 64), colour).save(content, "jpeg")
        files = [("images", ("a.jpg", content.getvalue(), "image/jpeg"))]
        data = {"query": json.dumps({"title": "a mug", "k": K})}
        got = self.send("POST", "/v1/recommend", data=data, files=files)
        if got and len(got["answers"]) != K:
            self.wrong(f"{len(got['answers'])} answers for a picture")

    def batch(self) -> None:
        uids = self.random.sample(self.truth.uids, 8)
        queries = [{"uids": [u], "k": K, "candidates": self.truth.candidates} for u in uids]
        queries.insert(3, {"uids": ["no such product"]})
        got = self.send("POST", "/v1/recommend/batch", json={"queries": queries})
        results = got.get("results", [])
        if results and "error" not in results.pop(3):
            self.wrong("an unknown product in a batch was answered")
        for uid, result in zip(uids, results):
            self.check(uid, [a["uid"] for a in result["answers"]], self.truth.answers[uid])

    def search(self) -> None:
        uid = self.random.choice(self.truth.uids)
        got = self.send("GET", "/v1/products", params={"text": uid, "limit": 3})
        self.check("search", [p["uid"] for p in got.get("products", [])][:1], [uid])

    def upsert(self) -> None:
        uid, price = f"{self.name}-{self.random.randrange(12)}", float(self.random.randrange(9))
        words = " ".join(self.random.choices(COLOURS, k=3))
        product = {"title": f"{words} thing", "attributes": {"owner": self.name, "cost": price}}
        got = self.send("PUT", f"/v1/products/{uid}", json=product)
        if got:
            self.mine[uid] = price
            if got["title"] != product["title"] or not got["live"]:
                self.wrong(f"{uid} is {got}")
            self.check(uid, self.ask(uids=self.truth.uids[:1], candidates=[uid]), [uid])

    def delete(self) -> None:
        if not self.mine:
            return self.upsert()
        uid = self.random.choice(list(self.mine))
        self.send("DELETE", f"/v1/products/{uid}", 204)
        del self.mine[uid]
        self.send("GET", f"/v1/products/{uid}", 404)
        self.ask(422, uids=self.truth.uids[:1], candidates=[uid])
        return None

    def own(self) -> None:
        """All of its own products that cost at least so much, and no other client's."""
        least = float(self.random.randrange(9))
        if not self.mine:
            return self.upsert()
        where = {"owner": self.name, "cost": {"gte": least}}
        got = self.ask(uids=self.truth.uids[:1], k=100, where=where)
        expected = sorted(uid for uid, price in self.mine.items() if price >= least)
        self.check("own", None if got is None else sorted(got), expected)
        return None

    def bad(self) -> None:
        self.ask(422, uids=["no such product"])
        self.ask(422, title="mug", k=0)
        self.send("GET", "/v1/nothing", 404)


def soak(folder: Path, requests: int, clients: int) -> dict:
    """Runs the server and the clients; returns the figures."""
    with tempfile.TemporaryDirectory() as scratch, running(folder, Path(scratch)) as (server, at):
        truth = truth_of(at)
        watch = Memory(server.pid)
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            each = [requests // clients + (i < requests % clients) for i in range(clients)]
            every = [Client(i, at, truth) for i in range(clients)]
            outcomes = list(threads.map(lambda client, n: client.run(n), every, each))
        seconds = time.perf_counter() - start
        left = {uid for client in every for uid in client.mine}
        watch.stop()
        lost = lost_products(at, left)
    took = np.concatenate([outcome.seconds for outcome in outcomes]) * 1000
    statuses: Counter[int] = sum((outcome.statuses for outcome in outcomes), Counter())
    kinds: Counter[str] = sum((outcome.kinds for outcome in outcomes), Counter())
    wrong = [text for outcome in outcomes for text in outcome.wrong] + lost
    return {
        "machine": machine(),
        "clients": clients,
        "requests": len(took),
        "kinds": dict(sorted(kinds.items())),
        "statuses": {str(status): n for status, n in sorted(statuses.items())},
        "wrong": len(wrong),
        "first_wrong": wrong[:3],
        "seconds": round(seconds, 1),
        "requests_per_second": round(len(took) / seconds, 1),
        "milliseconds": {f"p{q}": round(float(np.percentile(took, q)), 1) for q in (50, 99)},
        "memory_mb": watch.figures(),
    }


@contextlib.contextmanager
def running(folder: Path, scratch: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """`mufin serve` on the folder, ready, and its address."""
    store = scratch / "store.sqlite"
    command = [sys.executable, "-m", "mufin.cli", "serve", str(folder), "--port", "0"]
    server = subprocess.Popen([*command, "--store", str(store)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        end = time.monotonic() + READY
        while httpx.get(f"{address}/readyz").status_code != 200:
            if time.monotonic() > end or server.poll() is not None:
                raise RuntimeError("the server does not get ready")
            time.sleep(0.2)
        yield server, address
    finally:
        server.terminate()
        server.wait(60)


def truth_of(address: str) -> Truth:
    """What the server answers alone, before it changes, among candidates that do not change."""
    with httpx.Client(base_url=address, timeout=60) as http:
        products = http.get("/v1/products", params={"text": "b", "limit": 100}).json()["products"]
        candidates = [p["uid"] for p in products if p["answerable"]][:FIXED]
        uids = [p["uid"] for p in products][:KNOWN]
        answers = {}
        for uid in uids:
            question = {"uids": [uid], "k": K, "candidates": candidates}
            got = http.post("/v1/recommend", json=question).json()
            answers[uid] = [answer["uid"] for answer in got["answers"]]
    return Truth(uids, candidates, answers)


def lost_products(address: str, expected: set[str]) -> list[str]:
    """A sentence for each product that was acknowledged and is not there."""
    with httpx.Client(base_url=address, timeout=60) as http:
        codes = {uid: http.get(f"/v1/products/{uid}").status_code for uid in sorted(expected)}
    return [f"{uid} is lost" for uid, code in codes.items() if code != 200]


class Memory:
    """The resident memory of a process, twice per second."""

    def __init__(self, process: int):
        self.process, self.samples = psutil.Process(process), [0.0]
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(0.5):
            self.samples.append(self.process.memory_info().rss / 2**20)

    def stop(self) -> None:
        self.ended.set()
        self.thread.join()

    def figures(self) -> dict[str, float]:
        """The means of the second and of the last quarter of the time, and the most."""
        samples = np.array(self.samples[1:] or [0.0])
        quarters = np.array_split(samples, 4)
        named = {"second_quarter": quarters[1], "last_quarter": quarters[3]}
        out = {name: round(float(part.mean()), 1) for name, part in named.items() if len(part)}
        return out | {"most": round(float(samples.max()), 1)}


def main(
    folder: Annotated[Path, typer.Option(help="a folder of a finished dvc repro")] = Path("."),
    requests: Annotated[int, typer.Option(help="kinds of requests sent, in all")] = 10_000,
    clients: Annotated[int, typer.Option(help="threads")] = 32,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures")] = None,
) -> None:
    """Print the figures as JSON; exit code 1 if an answer was wrong or a status 500."""
    figures = soak(folder, requests, clients)
    print(json.dumps(figures, indent=1))
    if out is not None:
        write_json(figures, out)
    raise typer.Exit(int(figures["wrong"] > 0 or "500" in figures["statuses"]))


if __name__ == "__main__":
    typer.run(main)
