"""Stage download: products and pictures of the source in `download.source`, stored as found.

The sources are the data of MUFIN Sec. 4 (Datasets; App. B), a catalog of your own
(docs/own-catalog.md) and the built-in sample.

python -m pipeline.download
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mufin import environment, runtime
from mufin.artifacts.attributes import NAME as ATTRIBUTES
from mufin.artifacts.files import fingerprint, read_json, write_json
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import SCHEMAS, write_table
from mufin.artifacts.texts import NAME as TEXTS
from mufin.catalogs import xmlrepo
from mufin.catalogs.attribute_cells import Values
from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.forms import FORMS, located
from mufin.catalogs.forms.polyvore_outfits import Release, release_folder
from mufin.catalogs.interactions import Columns as InteractionColumns
from mufin.catalogs.interactions import interactions, of_form, write_interactions
from mufin.catalogs.label_texts import label_texts
from mufin.catalogs.locations import File, Folders, files_of, name_of
from mufin.catalogs.notes import Notes
from mufin.catalogs.own_catalog import Names, OwnCatalog
from mufin.catalogs.product import Product
from mufin.catalogs.raw_attributes import AttributeWriter
from mufin.catalogs.raw_outfits import write_outfits, write_released
from mufin.catalogs.raw_products import References, Rows, first_images, write_products
from mufin.catalogs.raw_texts import TextWriter
from mufin.catalogs.released_pictures import STORED, stored_picture
from mufin.catalogs.released_zip import open_source
from mufin.cluster.fetching import fetch_pictures_on
from mufin.cluster.settings import cluster
from mufin.corpus.collecting import cut, fetch_pictures, reasons, store_pictures
from mufin.corpus.fetch import Fetcher, Limits
from mufin.corpus.fetch_log import FetchLog
from mufin.corpus.kept_images import KeptImages
from mufin.corpus.outfit_folder import FACTS, generate
from mufin.corpus.reasons import temporary
from mufin.corpus.sample import sample_catalog
from mufin.corpus.sample_shop import NAMES, shop_values
from mufin.errors import MufinError, sentence, shown
from mufin.params import Download, load_params
from mufin.progress import progress

if TYPE_CHECKING:
    from mufin.catalogs.vector_files import GivenVectors

THREADS = 16  # per worker: a thread mostly waits for its host


@dataclass
class Run:
    """One run of the stage."""

    s: Download
    folder: Path  # where the output is made
    keep: bool = False  # whether pictures that were fetched stay in scratch for later runs
    scratch: list[Path] = field(default_factory=list)  # folders that are of no use afterwards
    notes: Notes = field(default_factory=Notes)  # counts of what was dropped or odd
    kept: KeptImages = field(init=False)  # images that the catalog itself holds

    def __post_init__(self):
        # Beside the output, where it goes when the stage ends.
        self.kept = KeptImages(self.folder.parent / "kept_images", self.s.max_bytes)

    def scratch_of(self, *what: object) -> Path:
        """The scratch folder for what is fetched, which an earlier run may have begun to fill."""
        self.scratch.append(runtime.scratch("download", fingerprint(what, [], [])))
        return self.scratch[-1]

    def fetcher(self, root: Path | None = None, marked: bool = False) -> Fetcher:
        """A fetcher within the limits of the settings; see `Fetcher`."""
        s = self.s
        limits = Limits(
            s.timeout,
            s.max_bytes,
            s.retries,
            s.per_host,
            s.max_redirects,
            s.private_addresses,
            s.user_agent,
        )
        return Fetcher(limits, root, marked)


def main(home: runtime.Home = Path(".")):
    """Fetch products and pictures of the source that download.source names."""
    s = load_params(home / "params.yaml").download
    with runtime.measured("download", home) as report, publish(home / "data/raw") as folder:
        folder.mkdir()
        run = Run(s, folder, bool(environment.whole("MUFIN_KEEP_FETCHED", 0, 0, 1)))
        # Before pictures are fetched, so that a column that is missing is found at once.
        behaviour = _interactions(run) if s.interactions.location else {}
        if s.source == "sample":
            facts = _sample(run)
        elif s.outfits.split:
            facts = _outfits(run)
        elif s.source in ("mm-amazontitles", "lf-amazontitles"):
            facts = _released(run)
        else:
            facts = _files(run)
        _check_failed(facts, run)
        if s.labels.location:
            facts |= _labels(run, bool(facts.get("released")))
        facts |= behaviour
        if s.match_ids:
            facts["match_ids"] = s.match_ids
        if run.notes.counts:
            facts["notes"] = run.notes.facts()
        # attributes.parquet itself says what its columns are
        left_out = ("failed_examples", "attributes")
        stored = {name: fact for name, fact in facts.items() if name not in left_out}
        write_json({"source": s.source, "released": False} | stored, folder / "source.json")
        report.items = facts["products"]
        report.facts = {name: fact for name, fact in facts.items() if name != "released"}
    for line in run.notes.sentences():
        _say(line)
    if s.source != "sample":
        _end(run, facts)


# The sources. Each function writes products.parquet and the images to the folder of the run, and
# returns counts.


def _files(run: Run) -> dict:
    """A catalog of your own, or a form of `FORMS`: the files that `download.location` names."""
    own, location = run.s.source == "catalog", run.s.location
    assert location  # params has checked it
    if not own:
        location = located(run.s.source, location)
    files = files_of(location, partial(_fetched, run))
    # Without files, `Folders` has no root, and the fetcher then refuses paths: most forms have only
    # URLs.
    folders = Folders(files if own or FORMS[run.s.source].local else [])
    fetcher = run.fetcher(folders.root, folders.marked)
    return _catalog(run, _products(run, files, folders), fetcher, fetcher.fetch)


def _fetched(run: Run, url: str) -> Path:
    """The scratch file with the content of `url`, fetched unless an earlier run did."""
    return run.fetcher().save(url, run.scratch_of("file", url) / name_of(url))


def _products(run: Run, files: list[File], folders: Folders) -> Iterator[Rows]:
    """The products of all files, in their order."""
    bad = BadRows(run.notes, run.s.bad_rows)
    if run.s.source == "catalog":
        yield from _own_products(run, files, folders, bad)
    else:
        yield from _form_products(run, files, folders, bad)
    bad.check()


def _form_products(run: Run, files: list[File], folders: Folders, bad: BadRows) -> Iterator[Rows]:
    """The products of a form of `FORMS`; a path of an image is one beside its file."""
    form, how = FORMS[run.s.source], run.s.columns.kept()
    read = form.products
    # Vectors are put into one product at a time, and texts are of products
    if form.tables and not (run.s.image_vectors.location or how):
        read = form.tables
    for group in [[file] for file in files] if form.local else [files]:
        paths = [file.path for file in group]
        for rows in read(paths, run.notes, encoding=run.s.encoding, bad=bad, **how):
            if isinstance(rows, Product):
                rows.images = [folders.reference(image, group[0]) for image in rows.images]
            yield rows


def _own_products(run: Run, files: list[File], folders: Folders, bad: BadRows) -> Iterator[Product]:
    """The products of a catalog of your own; a path of an image is one beside its file."""
    s, columns = run.s, run.s.columns
    names = Names(
        columns.id,
        columns.title,
        columns.image_columns(),
        columns.related_weights(),
        columns.category,
        columns.attributes,
        columns.further_texts(),
    )
    optional = {"related"} if s.interactions.location else set()
    if s.image_vectors.location or not s.max_images:
        optional.add("images")
    keep = run.kept.keep
    own = OwnCatalog(names, run.notes, encoding=s.encoding, bad=bad, keep=keep, optional=optional)
    for file in files:
        for product in own.products(file.path, len(files) == 1):
            product.images = [
                image if image in run.kept else folders.reference(image, file)
                for image in product.images
            ]
            yield product
    own.check()


def _interactions(run: Run) -> dict:
    """Write interactions.parquet: orders, sessions or ratings; facts for the stage curate.

    By the columns that the settings name, else as the form of the source says.
    """
    s, of = run.s, run.s.interactions
    form = FORMS.get(s.source)
    named = [of.basket, of.item, of.time, of.weight]
    read = form.interactions if form and not any(named) else None
    if read is None and not (of.basket and of.item):
        own = "or none of the columns" if any(named) else "since its form has no interactions"
        raise MufinError(
            f"download.interactions.{'item' if of.basket else 'basket'} is null; set basket and "
            f"item to the columns of {shown(of.location)} (source {s.source}), {own}"
        )
    bad, path = BadRows(run.notes, s.bad_rows), run.folder / "interactions.parquet"
    assert of.location
    with _naming("download.interactions.location"):
        location = located(s.source, of.location, behaviour=True) if read else of.location
        paths = [file.path for file in files_of(location, partial(_fetched, run))]
        if read:
            batches = of_form(read(paths, run.notes, encoding=s.encoding, bad=bad), run.notes)
        else:
            assert of.basket and of.item
            columns = InteractionColumns(of.basket, of.item, of.time, of.weight)
            batches = interactions(paths, columns, run.notes, bad=bad, encoding=s.encoding)
        count = write_interactions(progress(batches, "interactions", "batches"), path, bad)
    return {"interactions": True, "interaction_rows": count}


@contextlib.contextmanager
def _naming(setting: str) -> Iterator[None]:
    """Errors of files name this setting in place of download.location."""
    try:
        yield
    except MufinError as error:
        raise MufinError(str(error).replace("download.location", setting)) from None


def _labels(run: Run, released: bool) -> dict:
    """Write labels.parquet, the labels that are no products; facts for the stage curate."""
    s, labels = run.s, run.s.labels
    if released:
        raise MufinError(
            f"download.labels.location is {shown(labels.location)}, but the data of source "
            f"{s.source} come with labels of their own; set it to null"
        )
    assert labels.location
    with _naming("download.labels.location"):
        files = files_of(labels.location, partial(_fetched, run))
    bad, columns = BadRows(run.notes, s.bad_rows), (labels.id, labels.text)
    rows = label_texts(
        [file.path for file in files], columns, labels.prefix, run.notes, bad, s.encoding
    )
    count, schema = 0, SCHEMAS["raw_labels"]
    with pq.ParquetWriter(run.folder / "labels.parquet", schema, compression="zstd") as writer:
        while batch := list(itertools.islice(rows, 10_000)):
            uids, titles = zip(*batch)
            writer.write_table(pa.table({"uid": uids, "title": titles}, schema=schema))
            count += len(batch)
    if not count:
        raise MufinError(f"download.labels.location {shown(labels.location)} holds no label")
    return {"labels": True, "label_prefix": labels.prefix, "label_texts": count}


def _sample(run: Run) -> dict:
    """The built-in sample; a dead reference is recorded as HTTP 404."""
    s, folder = run.s, run.folder
    rows, images, facts = sample_catalog(s.sample.products, s.sample.seed)
    products = (
        Product(r["ASIN"], r["title"], r["images"][: s.max_images], r["also_buy"], r["category"])
        for r in rows
    )
    values = shop_values([r["ASIN"] for r in rows], s.sample.products, s.sample.seed)
    counts = _written(run, map(_with_attributes, products, values), NAMES, False)
    wanted = list(dict.fromkeys(ref for r in rows for ref in r["images"][: s.max_images]))
    got = ((ref, images.get(ref, b""), "" if ref in images else "HTTP 404") for ref in wanted)
    return counts | store_pictures(got, folder) | {"sample": facts}


def _with_attributes(product: Product, values: Values) -> Product:
    product.attributes = values
    return product


def _outfits(run: Run) -> dict:
    """Outfits with a blank, of Polyvore Outfits or generated in its layout."""
    s = run.s
    if s.source == "sample-outfits":
        home = run.folder.parent / "generated"  # beside the output, where it goes with the stage
        generate(home, s.sample.outfits, s.sample.seed)
    else:
        assert s.location
        home = release_folder(s.location)
    kind = s.outfits.split
    assert kind
    release, fetcher = Release(home, kind, s.encoding), run.fetcher(home)
    bad = BadRows(run.notes, s.bad_rows)
    products = release.products(run.notes, bad, s.outfits.blank_type)
    counts = _catalog(run, products, fetcher, fetcher.fetch, True, texts=True)
    bad.check()
    counts |= write_released(release, run.folder / "released")
    counts |= write_outfits(release, run.folder / "outfits")
    if (home / FACTS).is_file():
        facts = read_json(home / FACTS)
        counts["sample"] = {"outfits": facts["outfits"], "seed": facts["seed"]} | facts[kind]
    return counts | {"released": True, "outfit_split": kind}


def _released(run: Run) -> dict:
    """A data set of the Extreme Classification Repository, such as MM-AmazonTitles-300K.

    With its split if the zip or folder has one.
    """
    s, folder = run.s, run.folder
    scratch = run.scratch_of("zip", s.location)
    layout = xmlrepo.read(open_source(s.location, scratch, run.fetcher()))
    for name in layout.unfiltered:
        run.notes.add("splits without filter pairs: no file of these was found", name)
    fetcher, store = run.fetcher(layout.home), layout.home / "images/img.bin"
    with open(store, "rb") if store.is_file() else contextlib.nullcontext() as stored:

        def local(reference: str) -> tuple[bytes, str]:
            if stored and reference.startswith(STORED):
                return stored_picture(stored, reference, s.max_bytes)
            return fetcher.fetch(reference)

        rows = layout.rows()
        counts = _catalog(run, layout.products, fetcher, local, bool(layout.splits), rows)
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
    products: Iterable[Rows],
    fetcher: Fetcher,
    local: Callable[[str], tuple[bytes, str]],
    released: bool = False,
    rows: Mapping[str, pa.ChunkedArray] | None = None,
    texts: bool = False,
) -> dict:
    """Write the products, then fetch and store their pictures; counts.

    `local` returns (bytes, reason) of a reference that is not a URL; those are read in every run.
    `released` says that the source has its own split, so that it needs no relations; `rows` are the
    ids of its rows, by which vectors can be given; `texts` that products have several texts without
    columns of these.
    """
    s, vectors = run.s, None
    if s.image_vectors.location and s.image_vectors.ids:
        from mufin.catalogs.vector_files import given_vectors  # needs polars

        vectors = given_vectors(
            s.image_vectors.location, s.image_vectors.ids, rows or {}, run.notes
        )
        products = vectors.put_in(products, s.max_images, run.notes)
    products, named = first_images(products, s.max_images), s.columns
    counts = _written(run, products, named.attributes, texts or bool(named.further_texts()))
    where = shown(s.location)
    if not counts["products"]:
        raise MufinError(f"download.location {where} holds no product; look at download.source")
    if not counts["relations"] and not released and not s.interactions.location:
        remedy = (
            "set download.interactions to its orders, reviews or ratings; relations come from these"
        )
        if s.source in ("amazon-2014", "amazon-2018"):
            remedy = "look at download.source: the 2014 and the 2018 dumps differ in format"
        elif s.source == "catalog":
            remedy = (
                f"set download.columns.related (now {shown(s.columns.related)}) to the column "
                "that holds them"
            )
        raise MufinError(f"no product of {where} has related ids; {remedy}")
    if vectors:
        return counts | _vectors(run, vectors)
    scratch, terms = run.scratch_of(s.source, s.location), fetcher.limits.terms()
    log = FetchLog(scratch / "fetched.log", terms)
    references = References(run.folder / "products.parquet")
    listed = partial(iter, references)
    if (machines := cluster()) is not None:
        fetch_pictures_on(machines, listed, fetcher.limits, log, THREADS, scratch.name)
    # On a cluster this is what its machines have given up: their hosts may answer again
    fetch_pictures(listed, fetcher, log, THREADS * runtime.workers())
    with log.reader() as record_of, contextlib.closing(run.kept) as kept:

        def given(reference: str) -> tuple[bytes, str]:
            return kept.fetch(reference) if reference in kept else local(reference)

        # In the order of the products, not of the answers, so that every run writes the same bytes.
        got = (record_of(ref) or (ref, *given(ref)) for ref in references)
        return counts | store_pictures(got, run.folder)


def _written(run: Run, products: Iterable[Rows], attributes: Sequence[str], texts: bool) -> dict:
    """Write the products, and beside them the columns for filters and of texts, if any; counts."""
    folder, values, further = run.folder, None, None
    if attributes:
        waiting = folder.parent / "attributes.parquet"  # goes when the stage ends
        values = AttributeWriter(attributes, waiting, run.notes)
    if texts:
        further = TextWriter(folder / TEXTS)
    counts = write_products(products, folder / "products.parquet", values, further)
    if values:
        counts["attributes"] = values.close(folder / ATTRIBUTES)
    if further:
        counts |= further.close() | {"max_texts": run.s.max_texts}
    return counts


def _vectors(run: Run, given: GivenVectors) -> dict:
    """Store the vectors that were given in place of images, and their log; counts."""
    vectors = {"width": given.width, "rows": len(given.used)}
    return given.store(run.folder, run.notes) | {"vectors": vectors}


# The pictures that are missing


def _check_failed(facts: dict, run: Run) -> None:
    """Raises MufinError if more than a fraction `download.max_failed` of the references failed."""
    failed, total = sum(facts["failed"].values()), facts["references"]
    if total and failed > (most := run.s.max_failed) * total:
        kept = cut(str(run.scratch[-1]), 60) if run.scratch else ""
        again = f"; remove {kept} to ask for all again" if kept else ""
        raise MufinError(
            f"{failed} of {total} image references gave no picture ({reasons(facts, 2, 1, 40)}), "
            f"more than download.max_failed ({most:g}); correct the references, or raise it{again}"
        )


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
        _say(
            f"{failed} of {facts['references']} image references gave no picture ({reasons(facts)})"
        )
    if again:
        _say(
            f"{again} of them failed for want of a network or a host: `dvc repro -f -s download`, "
            "then `dvc repro`, asks for those again and keeps the others, which are in "
            f"{run.scratch[-1]} until then ({_megabytes(run.scratch):.0f} MB)"
        )
    if not run.scratch:  # nothing was fetched
        return
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
