"""Collects the pictures of a catalog: fetches them all, and stores those that are there."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mufin.corpus.fetch import Fetcher, is_url, place_of
from mufin.corpus.fetch_log import FetchLog, Record
from mufin.corpus.fetch_threads import fetch_all
from mufin.corpus.image_log import ImageLog
from mufin.corpus.image_store import ImageWriter
from mufin.corpus.reasons import GIVEN_UP
from mufin.errors import shown
from mufin.progress import progress


def fetch_pictures(
    references: Callable[[], Iterator[str]], fetcher: Fetcher, log: FetchLog, threads: int
) -> None:
    """Fetch the pictures of all URLs into the log, where a later run finds them."""

    def todo() -> Iterator[str]:
        return (ref for ref in references() if is_url(ref) and not log.done(ref))

    fetcher.network.places, total = _places(todo())
    given_up = _fetch_once(todo(), total, fetcher, log, threads)
    if given_up:  # by now their hosts may answer again; a dead one costs one more request
        fetcher.network.try_again()
        _fetch_once(todo(), given_up, fetcher, log, threads)
    log.close()


def _fetch_once(
    todo: Iterator[str], total: int, fetcher: Fetcher, log: FetchLog, threads: int
) -> int:
    """Fetch all references; the number of those not asked, because their host was given up."""

    def logged() -> Iterator[Record]:
        for records in fetch_all(todo, fetcher, threads):
            log.add(records)
            yield from records

    fetched = progress(logged(), "fetch pictures", "pictures", total)
    return sum(reason == GIVEN_UP for _, _, reason in fetched)


def _places(urls: Iterator[str]) -> tuple[list[tuple[str, int]], int]:
    """The distinct hosts and ports of URLs, and the number of URLs."""
    places: dict[tuple[str, int], None] = {}
    count = 0
    for url in urls:
        count += 1
        with contextlib.suppress(ValueError):  # not a URL: its fetch gives the reason
            places[place_of(url)] = None
    return list(places), count


def store_pictures(records: Iterable[tuple[str, bytes, str]], folder: Path) -> dict:
    """Write the image store and the image log, one row per (reference, bytes, reason); counts."""
    writer, log = ImageWriter(folder / "images"), ImageLog(folder)
    failed: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for reference, content, reason in records:
        if reason:
            failed[reason] += 1
            examples.setdefault(reason, shown(cut(reference, 200), 300))
        log.add(reference, "" if reason else writer.add(content), reason)
    writer.close()
    pictures = len(writer.keys)
    del writer  # its keys take memory
    log.write(folder / "image_log.parquet")
    return {
        "pictures": pictures,
        "references": log.rows,
        "failed": dict(failed.most_common()),
    } | ({"failed_examples": examples} if examples else {})


def reasons(facts: dict, most: int = 3, examples: int = 3, width: int = 60) -> str:
    """The `most` frequent reasons, with their counts.

    The first `examples` of them with a reference, without its middle if it is longer than `width`.
    """
    parts = []
    for number, (reason, count) in enumerate(list(facts["failed"].items())[:most]):
        example = cut(facts["failed_examples"][reason], width)
        parts.append(f"{reason}: {count}" + (f", such as {example}" if number < examples else ""))
    return ", ".join(parts)


def cut(text: str, width: int) -> str:
    """A text without its middle if it is longer; the end of a reference names the picture."""
    if len(text) <= width:
        return text
    half = (width - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
