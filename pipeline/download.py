"""Stage download: products and pictures of the source in `download.source`, stored as found.

The sources are the data of MUFIN Sec. 4 (Datasets; App. B), a catalog of your own
(docs/own-catalog.md) and the built-in sample.

python -m pipeline.download
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mufin import environment, runtime
from mufin.artifacts.files import fingerprint, write_json
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import SCHEMAS, write_table
from mufin.corpus import sources, xmlrepo
from mufin.corpus.fetch import Fetcher, Limits, is_url, place_of
from mufin.corpus.fetch_log import FetchLog, Record
from mufin.corpus.fetch_threads import fetch_all
from mufin.corpus.image_store import ImageWriter
from mufin.corpus.reasons import GIVEN_UP, temporary
from mufin.corpus.released_pictures import STORED, stored_picture
from mufin.corpus.sample import sample_catalog
from mufin.corpus.sources import File, Folders, Product
from mufin.errors import MufinError, sentence, shown
from mufin.params import Download, load_params
from mufin.progress import progress

THREADS = 16  # per worker: a thread mostly waits for its host


@dataclass
class Run:
    """One run of the stage."""

    s: Download
    folder: Path  # where the output is made
    keep: bool = False  # whether pictures that were fetched stay in scratch for later runs
    scratch: list[Path] = field(default_factory=list)  # folders that are of no use afterwards

    def scratch_of(self, *what: object) -> Path:
        """The scratch folder for what is fetched, which an earlier run may have begun to fill."""
        self.scratch.append(runtime.scratch("download", fingerprint(what, [], [])))
        return self.scratch[-1]

    def fetcher(self, root: Path | None = None, marked: bool = False) -> Fetcher:
        """A fetcher within the limits of the settings; see `Fetcher`."""
        s = self.s
        limits = Limits(
            s.timeout, s.max_bytes, s.retries, s.per_host, s.max_redirects, s.private_addresses
        )
        return Fetcher(limits, root, marked)


def main(home: runtime.Home = Path(".")):
    """Fetch products and pictures of the source that download.source names."""
    s = load_params(home / "params.yaml").download
    with runtime.measured("download", home) as report, publish(home / "data/raw") as folder:
        folder.mkdir()
        run = Run(s, folder, bool(environment.whole("MUFIN_KEEP_FETCHED", 0, 0, 1)))
        if s.source == "sample":
            facts = _sample(run)
        elif s.source == "mm-amazontitles":
            facts = _released(run)
        else:
            facts = _files(run)
        _check_failed(facts, s)
        write_json({"source": s.source, "released": False} | facts, folder / "source.json")
        report.items = facts["products"]
        report.facts = {name: fact for name, fact in facts.items() if name != "released"}
    if s.source != "sample":
        _end(run, facts)


# The sources. Each function writes products.parquet and the images to the folder of the run, and
# returns counts.


def _files(run: Run) -> dict:
    """A catalog of your own or an Amazon dump: the files that `download.location` names."""
    files = sources.files_of(run.s.location, partial(_fetched, run))
    # Without files, `Folders` has no root, and the fetcher then refuses paths: dumps have only
    # URLs.
    folders = Folders(files if run.s.source == "catalog" else [])
    fetcher = run.fetcher(folders.root, folders.marked)
    return _catalog(run, _products(run.s, files, folders), fetcher, fetcher.fetch)


def _fetched(run: Run, url: str) -> Path:
    """The scratch file with the content of `url`, fetched unless an earlier run did."""
    return run.fetcher().save(url, run.scratch_of("file", url) / sources.name_of(url))


def _products(s: Download, files: list[File], folders: Folders) -> Iterator[Product]:
    """The products of all files, in their order."""
    columns = {n: getattr(s.columns, n) for n in ("id", "title", "images", "related", "category")}
    for file in files:
        if s.source == "amazon-2018":
            yield from sources.amazon_2018(file.path)
        elif s.source == "amazon-2014":
            yield from sources.amazon_2014(file.path)
        else:
            for product in sources.catalog(file.path, columns):
                product.images = [folders.reference(image, file) for image in product.images]
                yield product


def _sample(run: Run) -> dict:
    """The built-in sample; a dead reference is recorded as HTTP 404."""
    s, folder = run.s, run.folder
    rows, images, facts = sample_catalog(s.sample.products, s.sample.seed)
    products = (
        Product(r["ASIN"], r["title"], r["images"][: s.max_images], r["also_buy"], r["category"])
        for r in rows
    )
    counts = _write_products(products, folder / "products.parquet")
    wanted = list(dict.fromkeys(ref for r in rows for ref in r["images"][: s.max_images]))
    got = ((ref, images.get(ref, b""), "" if ref in images else "HTTP 404") for ref in wanted)
    return counts | _store(got, folder) | {"sample": facts}


def _released(run: Run) -> dict:
    """MM-AmazonTitles-300K (MUFIN App. B), with its split if the zip or folder has one."""
    s, folder = run.s, run.folder
    scratch = run.scratch_of("zip", s.location)
    layout = xmlrepo.read(xmlrepo.open_source(s.location, scratch, run.fetcher()))
    fetcher, store = run.fetcher(layout.home), layout.home / "images/img.bin"
    with open(store, "rb") if store.is_file() else contextlib.nullcontext() as stored:

        def local(reference: str) -> tuple[bytes, str]:
            if stored and reference.startswith(STORED):
                return stored_picture(stored, reference, s.max_bytes)
            return fetcher.fetch(reference)

        counts = _catalog(run, layout.products, fetcher, local, bool(layout.splits))
    if layout.splits:
        write_table({"uid": layout.labels}, "released_labels", folder / "released/labels.parquet")
        for name, (uids, labels, excluded) in layout.splits.items():
            columns = {
                "uid": uids,
                "labels": labels.to_arrow(pa.int32()),
                "excluded": excluded.to_arrow(pa.int32()),
            }
            write_table(columns, "released_split", folder / f"released/{name}.parquet")
    return counts | {"released": bool(layout.splits)}


def _catalog(
    run: Run,
    products: Iterable[Product],
    fetcher: Fetcher,
    local: Callable[[str], tuple[bytes, str]],
    released: bool = False,
) -> dict:
    """Write the products, then fetch and store their pictures; counts.

    `local` returns (bytes, reason) of a reference that is not a URL; those are read in every run.
    `released` says that the source has its own split, so that it needs no relations.
    """
    s, references = run.s, run.folder / "products.parquet"
    counts = _write_products(_first_images(products, s.max_images), references)
    where = shown(s.location)
    if not counts["products"]:
        raise MufinError(f"download.location {where} holds no product; look at download.source")
    if not counts["relations"] and not released:
        remedy = "look at download.source: the 2014 and the 2018 dumps differ in format"
        if s.source == "catalog":
            remedy = (
                f"set download.columns.related (now {shown(s.columns.related)}) to the column "
                "that holds them"
            )
        raise MufinError(f"no product of {where} has related ids; {remedy}")
    log = FetchLog(run.scratch_of(s.source, s.location) / "fetched.log")
    _fetch(partial(_references, references), fetcher, log)
    with log.reader() as record_of:
        # In the order of the products, not of the answers, so that every run writes the same bytes.
        got = (record_of(ref) or (ref, *local(ref)) for ref in _references(references))
        return counts | _store(got, run.folder)


def _fetch(references: Callable[[], Iterator[str]], fetcher: Fetcher, log: FetchLog) -> None:
    """Fetch the pictures of all URLs into the log, where a later run finds them."""

    def todo() -> Iterator[str]:
        return (ref for ref in references() if is_url(ref) and ref not in log.done)

    fetcher.network.places = _places(todo())
    given_up = _fetch_once(todo(), fetcher, log)
    if given_up:  # by now their hosts may answer again; a dead one costs one more request
        fetcher.network.try_again()
        _fetch_once(todo(), fetcher, log)
    log.close()


def _fetch_once(todo: Iterator[str], fetcher: Fetcher, log: FetchLog) -> int:
    """Fetch all references; the number of those not asked, because their host was given up."""

    def logged() -> Iterator[Record]:
        for records in fetch_all(todo, fetcher, THREADS * runtime.workers()):
            log.add(records)
            yield from records

    fetched = progress(logged(), "fetch pictures", "pictures")
    return sum(reason == GIVEN_UP for _, _, reason in fetched)


def _places(urls: Iterator[str]) -> list[tuple[str, int]]:
    """The distinct hosts and ports of URLs."""
    places = {}
    for url in urls:
        with contextlib.suppress(ValueError):  # not a URL: its fetch gives the reason
            places[place_of(url)] = None
    return list(places)


# Writing


def _first_images(products: Iterable[Product], most: int) -> Iterator[Product]:
    """The products with their first `most` distinct image references."""
    for product in products:
        product.images = list(dict.fromkeys(product.images))[:most]
        yield product


def _write_products(products: Iterable[Product], path: Path) -> dict:
    """Write the products as Parquet, ten thousand at a time; counts of what was written."""
    counts, products = Counter(products=0, relations=0, image_references=0), iter(products)
    with pq.ParquetWriter(path, SCHEMAS["raw_products"], compression="zstd") as writer:
        while batch := list(itertools.islice(products, 10_000)):
            columns = {n: [getattr(p, n) for p in batch] for n in SCHEMAS["raw_products"].names}
            writer.write_table(pa.table(columns, schema=SCHEMAS["raw_products"]))
            counts["products"] += len(batch)
            counts["relations"] += sum(len(p.related) for p in batch)
            counts["image_references"] += sum(len(p.images) for p in batch)
    return dict(counts)


def _references(path: Path) -> Iterator[str]:
    """The distinct image references of the products, in order of their first occurrence."""
    seen: set[str] = set()
    for batch in pq.ParquetFile(path).iter_batches(10_000, columns=["images"]):
        for reference in itertools.chain.from_iterable(batch["images"].to_pylist()):
            if reference not in seen:
                seen.add(reference)
                yield reference


def _store(records: Iterable[tuple[str, bytes, str]], folder: Path) -> dict:
    """Write the image store and the image log, one row per (reference, bytes, reason); counts."""
    writer, rows, reasons = ImageWriter(folder / "images"), [], Counter()
    for reference, content, reason in records:
        if reason:
            reasons[reason] += 1
        rows.append((reference, "" if reason else writer.add(content), reason))
    writer.close()
    rows.sort()
    columns = zip(*rows) if rows else ((), (), ())
    texts = (pa.array(column, pa.string()) for column in columns)
    write_table(
        dict(zip(("url", "key", "reason"), texts)), "image_log", folder / "image_log.parquet"
    )
    return {
        "pictures": len(writer.keys),
        "references": len(rows),
        "failed": dict(reasons.most_common()),
    }


def _check_failed(facts: dict, s: Download) -> None:
    """Raises MufinError if more than a fraction `download.max_failed` of the references failed."""
    failed, total = sum(facts["failed"].values()), facts["references"]
    if total and failed > s.max_failed * total:
        raise MufinError(
            f"{failed} of {total} image references gave no picture ({_why(facts)}), more than "
            f"download.max_failed ({s.max_failed:g}); correct the references, or raise it; "
            "pictures that were fetched are not fetched again"
        )


def _why(facts: dict, most: int = 3) -> str:
    """The most frequent reasons, with their counts."""
    return ", ".join(f"{reason}: {count}" for reason, count in list(facts["failed"].items())[:most])


# The end


def _end(run: Run, facts: dict) -> None:
    """Say which pictures are missing, and remove what was only of use for this run.

    Pictures that were fetched would otherwise be on the disk twice. They stay if others failed for
    want of a network, since the next run then asks for those alone, and if MUFIN_KEEP_FETCHED is 1.
    """
    failed = sum(facts["failed"].values())
    again = sum(count for reason, count in facts["failed"].items() if temporary(reason))
    if not again:
        for folder in run.scratch[: -1 if run.keep else None]:  # the last one has the pictures
            runtime.discard(folder)
    if failed:
        _say(f"{failed} of {facts['references']} image references gave no picture ({_why(facts)})")
    if again:
        _say(
            f"{again} of them failed for want of a network or a host: `dvc repro -f -s download`, "
            "then `dvc repro`, asks for those again and keeps the others, which are in "
            f"{run.scratch[-1]} until then ({_megabytes(run.scratch):.0f} MB)"
        )
    others = [p for p in run.scratch[-1].parent.glob("*") if p.is_dir() and p not in run.scratch]
    if size := _megabytes(others):
        _say(
            f"{run.scratch[-1].parent} also holds other downloads that did not end ({size:.0f} "
            "MB); remove them if you will not continue them"
        )


def _megabytes(folders: list[Path]) -> float:
    """MB of all files in the folders, but for the small ones that say who holds them."""
    files = (p for folder in folders for p in folder.rglob("*") if p.is_file())
    return sum(p.stat().st_size for p in files if p.name != runtime.LOCK) / 2**20


def _say(text: str) -> None:
    print(sentence(f"download: {text}"), file=sys.stderr, flush=True)


if __name__ == "__main__":
    runtime.run(main)
