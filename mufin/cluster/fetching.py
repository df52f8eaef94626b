"""Pictures fetched by the machines of a cluster, `PART` URLs at a time.

Their logs are added to that of this machine, in which the stage then finds them as if it had
fetched them itself.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from mufin.cluster.engine import connected
from mufin.cluster.settings import Cluster
from mufin.cluster.store import Store
from mufin.corpus.collecting import fetch_pictures
from mufin.corpus.digests import Digests, digest_of
from mufin.corpus.fetch import Fetcher, Limits, is_url
from mufin.corpus.fetch_log import FetchLog, records_of
from mufin.progress import progress

PART = 10_000  # URLs
ADDED = 64  # records at once: they are in memory


def fetch_pictures_on(
    cluster: Cluster,
    references: Callable[[], Iterator[str]],
    limits: Limits,
    log: FetchLog,
    threads: int,
    run: str,
) -> None:
    """Adds to `log` what the cluster fetches of the URLs that are not `done` there.

    The machines together ask a host `limits.per_host` times at once. `threads` are those per core,
    `run` names the catalog. Raises MufinError if the cluster, its store or the network fails.
    """
    todo = _distinct(ref for ref in references() if is_url(ref) and not log.done(ref))
    with connected(cluster.address) as found:
        engine = replace(found, count=min(found.count, limits.per_host))
        parts = cluster.store.within(f"runs/{run}-fetch")
        settings = {
            "parts": parts,
            "limits": replace(limits, per_host=limits.per_host // engine.count),
            "threads": threads * engine.cores,
        }
        items = list(_send(todo, parts))
        answers = engine.each(FetchesPictures, settings, items)
        for answer in progress(answers, "fetch", f"parts of {PART} pictures", len(items)):
            _add(parts, answer["log"], log)
    parts.remove()


class FetchesPictures:
    """Fetches parts on a machine of the cluster."""

    def __init__(self, parts: Store, limits: Limits, threads: int):
        self.parts, self.limits, self.threads = parts, limits, threads

    def __call__(self, item: dict) -> dict:
        with tempfile.TemporaryDirectory() as scratch:
            listed, path = Path(scratch, "urls.json"), Path(scratch, "fetched.log")
            self.parts.get(item["urls"], listed)
            urls = json.loads(listed.read_text())
            log = FetchLog(path, self.limits.terms())
            fetch_pictures(lambda: iter(urls), Fetcher(self.limits), log, self.threads)
            return {"log": self.parts.put(path)}


def _distinct(urls: Iterator[str]) -> Iterator[str]:
    seen = Digests()
    for url in urls:
        if seen.get(digest := digest_of(url)) < 0:
            seen.put(digest, 1)
            yield url


def _send(urls: Iterator[str], parts: Store) -> Iterator[dict]:
    while part := list(islice(urls, PART)):
        with tempfile.TemporaryDirectory() as scratch:
            listed = Path(scratch, "urls.json")
            listed.write_text(json.dumps(part))
            yield {"urls": parts.put(listed)}


def _add(parts: Store, digest: str, log: FetchLog) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "fetched.log")
        parts.get(digest, path)
        records = records_of(path)
        while some := list(islice(records, ADDED)):
            log.add(some)
