"""Products and pictures of the source that `download.source` names, as they are found.

python -m pipeline.download
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Callable, Iterable, Iterator

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

THREADS = 16  # a core; the work is waiting


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
        _enough(facts, s)
        write_json({"source": s.source, "released": False} | facts, folder / "source.json")
        report.items = facts["products"]
        report.facts = {name: fact for name, fact in facts.items() if name != "released"}


def _limits(s: Download) -> Limits:
    return Limits(
        s.timeout, s.max_bytes, s.retries, s.per_host, s.max_redirects, s.private_addresses
    )


def _files(s: Download, folder: Path) -> dict:
    """A catalog of your own, or a dump: the files of `download.location`, those at a URL fetched first."""
    files = sources.files_of(s.location, partial(_fetched, Fetcher(_limits(s))))
    folders = Folders(files if s.source == "catalog" else [])  # the dumps have URLs alone
    fetcher = Fetcher(_limits(s), folders.root, folders.marked)
    return _catalog(s, _products(s, files, folders), folder, fetcher, fetcher.fetch)


def _fetched(fetcher: Fetcher, url: str) -> Path:
    return fetcher.save(
        url, runtime.scratch("download", fingerprint(("file", url), [], [])) / sources.name_of(url)
    )


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
    rows, images, facts = sample_catalog(s.sample.products, s.sample.seed)
    products = (
        Product(r["ASIN"], r["title"], r["images"][: s.max_images], r["also_buy"], r["category"])
        for r in rows
    )
    counts = _write_products(products, folder / "products.parquet")
    wanted = list(dict.fromkeys(ref for r in rows for ref in r["images"][: s.max_images]))
    got = ((ref, images.get(ref, b""), "" if ref in images else "HTTP 404") for ref in wanted)
    return counts | _store(got, folder) | {"sample": facts}


def _catalog(
    s: Download,
    products: Iterable[Product],
    folder: Path,
    fetcher: Fetcher,
    local: Callable[[str], tuple[bytes, str]],
    released: bool = False,
) -> dict:
    """Products to Parquet, then their pictures: from the scratch log what is there, the rest fetched.

    `local` gives the bytes, or the reason, of a reference that is no URL: those are read each time.
    """
    counts = _write_products(_cut(products, s.max_images), folder / "products.parquet")
    if not counts["products"]:
        raise MufinError(
            f"download.location {s.location} holds no product; look at download.source"
        )
    if not counts["relations"] and not released:
        remedy = f"set download.columns.related (now {s.columns.related!r}) to the column that holds them"
        raise MufinError(
            f"no product of {s.location} has related ids; "
            + (
                remedy
                if s.source == "catalog"
                else "look at download.source: the dumps are of two forms"
            )
        )
    log = FetchLog(
        runtime.scratch("download", fingerprint((s.source, s.location), [], [])) / "fetched.log"
    )
    references = folder / "products.parquet"
    todo = (ref for ref in _references(references) if is_url(ref) and ref not in log.done)
    for record in progress(
        fetch_all(todo, fetcher, THREADS * runtime.workers()), "fetch pictures", "pictures"
    ):
        log.add(*record)
    log.close()
    with log.reader() as record_of:
        got = (record_of(ref) or (ref, *local(ref)) for ref in _references(references))
        return counts | _store(got, folder)


def _cut(products: Iterable[Product], most: int) -> Iterator[Product]:
    for product in products:
        product.images = list(dict.fromkeys(product.images))[:most]
        yield product


def _released(s: Download, folder: Path) -> dict:
    """The XML Repository's data set, from its zip or an unpacked folder, in either layout (METHOD, Task and data)."""
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
            write_table(
                {
                    "uid": uids,
                    "labels": labels.to_arrow(pa.int32()),
                    "excluded": excluded.to_arrow(pa.int32()),
                },
                "released_split",
                folder / f"released/{name}.parquet",
            )
    return counts | {"released": bool(layout.splits)}


def _write_products(products: Iterable[Product], path: Path) -> dict:
    """Products to Parquet, ten thousand at a time; counts."""
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
    """The distinct image references of the products, in order."""
    seen: set[str] = set()
    for batch in pq.ParquetFile(path).iter_batches(10_000, columns=["images"]):
        for reference in itertools.chain.from_iterable(batch["images"].to_pylist()):
            if reference not in seen:
                seen.add(reference)
                yield reference


def _store(records: Iterable[tuple[str, bytes, str]], folder: Path) -> dict:
    """Bytes to the image store and a row a reference to the log, in the order of the references; counts and reasons."""
    writer, rows, reasons = ImageWriter(folder / "images"), [], Counter()
    for reference, content, reason in records:
        if reason:
            reasons[reason] += 1
        rows.append((reference, "" if reason else writer.add(content), reason))
    writer.close()
    rows.sort()
    url, key, reason = zip(*rows) if rows else ((), (), ())
    write_table(
        {
            "url": pa.array(url, pa.string()),
            "key": pa.array(key, pa.string()),
            "reason": pa.array(reason, pa.string()),
        },
        "image_log",
        folder / "image_log.parquet",
    )
    return {
        "pictures": len(writer.keys),
        "references": len(rows),
        "failed": dict(reasons.most_common()),
    }


def _enough(facts: dict, s: Download) -> None:
    """Raises MufinError where too large a part of the references failed."""
    failed, total = sum(facts["failed"].values()), facts["references"]
    if total and failed > s.max_failed * total:
        why = ", ".join(f"{reason}: {count}" for reason, count in list(facts["failed"].items())[:3])
        raise MufinError(
            f"{failed} of {total} image references gave no picture ({why}), more than download.max_failed "
            f"({s.max_failed:g}); mend them, or raise it. What was fetched is kept for the next run"
        )


if __name__ == "__main__":
    runtime.run(main)
