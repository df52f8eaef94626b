"""Stage download: products and pictures of the source in `download.source`, stored as found.

The sources are the data of MUFIN Sec. 4 (Datasets; App. B), a catalog of your own
(docs/own-catalog.md) and the built-in sample.

python -m pipeline.download
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mufin import runtime
from mufin.artifacts.files import fingerprint, publish, write_json
from mufin.artifacts.tables import SCHEMAS, write_table
from mufin.corpus import sources, xmlrepo
from mufin.corpus.fetch import Fetcher, Limits, fetch_all, is_url
from mufin.corpus.fetch_log import FetchLog
from mufin.corpus.image_store import ImageWriter
from mufin.corpus.sample import sample_catalog
from mufin.corpus.sources import File, Folders, Product
from mufin.errors import MufinError
from mufin.params import Download, load_params
from mufin.progress import progress

THREADS = 16  # per worker: a thread mostly waits for its host


def main(home: runtime.Home = Path(".")):
    """Fetch products and pictures of the source that download.source names."""
    s = load_params(home / "params.yaml").download
    with runtime.measured("download", home) as report, publish(home / "data/raw") as folder:
        folder.mkdir()
        if s.source == "sample":
            facts = _sample(s, folder)
        elif s.source == "mm-amazontitles":
            facts = _released(s, folder)
        else:
            facts = _files(s, folder)
        _check_failed(facts, s)
        write_json({"source": s.source, "released": False} | facts, folder / "source.json")
        report.items = facts["products"]
        report.facts = {name: fact for name, fact in facts.items() if name != "released"}


def _limits(s: Download) -> Limits:
    return Limits(
        s.timeout, s.max_bytes, s.retries, s.per_host, s.max_redirects, s.private_addresses
    )


# The sources. Each function writes products.parquet and the images to `folder` and returns counts.


def _files(s: Download, folder: Path) -> dict:
    """A catalog of your own or an Amazon dump: the files that `download.location` names."""
    files = sources.files_of(s.location, partial(_fetched, Fetcher(_limits(s))))
    # Without files, `Folders` has no root, and the fetcher then refuses paths: dumps have only
    # URLs.
    folders = Folders(files if s.source == "catalog" else [])
    fetcher = Fetcher(_limits(s), folders.root, folders.marked)
    return _catalog(s, _products(s, files, folders), folder, fetcher, fetcher.fetch)


def _fetched(fetcher: Fetcher, url: str) -> Path:
    """The scratch file with the content of `url`, fetched unless an earlier run did."""
    scratch = runtime.scratch("download", fingerprint(("file", url), [], []))
    return fetcher.save(url, scratch / sources.name_of(url))


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


def _sample(s: Download, folder: Path) -> dict:
    """The built-in sample; a dead reference is recorded as HTTP 404."""
    rows, images, facts = sample_catalog(s.sample.products, s.sample.seed)
    products = (
        Product(r["ASIN"], r["title"], r["images"][: s.max_images], r["also_buy"], r["category"])
        for r in rows
    )
    counts = _write_products(products, folder / "products.parquet")
    wanted = list(dict.fromkeys(ref for r in rows for ref in r["images"][: s.max_images]))
    got = ((ref, images.get(ref, b""), "" if ref in images else "HTTP 404") for ref in wanted)
    return counts | _store(got, folder) | {"sample": facts}


def _released(s: Download, folder: Path) -> dict:
    """MM-AmazonTitles-300K (MUFIN App. B), with its split if the zip or folder has one."""
    scratch = runtime.scratch("download", fingerprint(("zip", s.location), [], []))
    layout = xmlrepo.read(xmlrepo.open_source(s.location, scratch, Fetcher(_limits(s))))
    fetcher, store = Fetcher(_limits(s), layout.home), layout.home / "images/img.bin"
    with open(store, "rb") if store.is_file() else contextlib.nullcontext() as stored:

        def local(reference: str) -> tuple[bytes, str]:
            if stored and reference.startswith(xmlrepo.STORED):
                return xmlrepo.stored_picture(stored, reference, s.max_bytes)
            return fetcher.fetch(reference)

        counts = _catalog(s, layout.products, folder, fetcher, local, bool(layout.splits))
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
    s: Download,
    products: Iterable[Product],
    folder: Path,
    fetcher: Fetcher,
    local: Callable[[str], tuple[bytes, str]],
    released: bool = False,
) -> dict:
    """Write the products, then fetch and store their pictures; counts.

    Results for URLs are first appended to a log in the scratch folder, where a later run finds
    them. `local` returns (bytes, reason) of a reference that is not a URL; those are read in every
    run. `released` says that the source has its own split, so that it needs no relations.
    """
    references = folder / "products.parquet"
    counts = _write_products(_first_images(products, s.max_images), references)
    if not counts["products"]:
        raise MufinError(
            f"download.location {s.location} holds no product; look at download.source"
        )
    if not counts["relations"] and not released:
        remedy = "look at download.source: the 2014 and the 2018 dumps differ in format"
        if s.source == "catalog":
            remedy = (
                f"set download.columns.related (now {s.columns.related!r}) to the column "
                "that holds them"
            )
        raise MufinError(f"no product of {s.location} has related ids; {remedy}")
    scratch = runtime.scratch("download", fingerprint((s.source, s.location), [], []))
    log = FetchLog(scratch / "fetched.log")
    todo = (ref for ref in _references(references) if is_url(ref) and ref not in log.done)
    fetched = fetch_all(todo, fetcher, THREADS * runtime.workers())
    for record in progress(fetched, "fetch pictures", "pictures"):
        log.add(*record)
    log.close()
    with log.reader() as record_of:
        # In the order of the products, not of the answers, so that every run writes the same bytes.
        got = (record_of(ref) or (ref, *local(ref)) for ref in _references(references))
        return counts | _store(got, folder)


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
        why = ", ".join(f"{reason}: {count}" for reason, count in list(facts["failed"].items())[:3])
        raise MufinError(
            f"{failed} of {total} image references gave no picture ({why}), more than "
            f"download.max_failed ({s.max_failed:g}); correct the references, or raise it; "
            "pictures that were fetched are not fetched again"
        )


if __name__ == "__main__":
    runtime.run(main)
