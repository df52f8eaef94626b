"""Costs of the stages download, curate and precompute."""

from __future__ import annotations

from mufin.planning import machine as rates
from mufin.planning.encoders import whole_image_step
from mufin.planning.run import BF16, FLOAT, INT, LONG, TABLES, Run
from mufin.planning.work import Held, Phase, Stage, Work
from mufin.training.self_supervision import BATCH as PRODUCTS

REFERENCE = 650.0  # bytes of a URL in the sets, dicts and lists of download, counted
PRODUCT, PICTURE, RELATION = 300.0, 150.0, 60.0  # bytes in curate, `corpus.clean_rows`: a few
DECODER = 0.15e9  # bytes of a process that decodes pictures
KEY = 32  # characters of the key of a picture
DECODED_AT_ONCE = {True: 256, False: 16}  # pictures per batch of precompute, with and without a GPU
RELEASED = ("mm-amazontitles", "lf-amazontitles")  # sources with a split of their own
UNTITLED = 0.05  # share of products without a title, assumed
VIEWS = 2  # pictures per product in a step of the self-supervised start
TITLE = 5.5  # characters per token, with the blank


def download(run: Run) -> Stage:
    """`pipeline.download`: lines read, pictures fetched `download.per_host` at a time.

    Fetched pictures are in scratch until all are stored. URLs are held in several containers
    (`corpus.fetch_log`, `corpus.collecting`).
    """
    s, d = run.sizes, run.params.download
    given = d.source in ("sample", "sample-outfits") or d.image_vectors.location is not None
    pictures = 0.0 if d.image_vectors.location else s.images * s.picture_bytes
    waited = 0.0 if given else s.images * rates.ANSWER_SECONDS / d.per_host
    scratch = 0.0 if given else pictures
    fetched = Work(what="fetch pictures", waited=waited, written=scratch, read=scratch)
    lines = Work(what="read products", core_seconds=s.products / rates.LINES, one_core=True)
    urls = Held("URLs of pictures", s.images * REFERENCE, "download.max_images")
    return Stage(
        "download",
        [Phase("fetch", [lines, fetched], [Held("the process", TABLES), urls])],
        {"data/raw": pictures + s.images * 75 + _tables(run)},
        scratch,
    )


def _tables(run: Run) -> float:
    """Bytes of the raw tables: titles, references of pictures, related ids (Parquet, zstd)."""
    s = run.sizes
    return s.products * (20 + 2 * s.tokens) + s.references * 25 + s.pairs * 6


def curate(run: Run) -> Stage:
    """`pipeline.curate`: batches of rows; ids as hashes, relations as integers in memory."""
    s = run.sizes
    held = [
        Held("the process", TABLES),
        Held("ids", s.products * PRODUCT, "curate.max_products"),
        Held("keys of pictures", s.images * PICTURE, "download.max_images"),
        Held("relations", s.pairs * RELATION, "curate.max_products"),
    ]
    pairs = s.pairs + run.asked * s.relations
    d = run.params.download
    looks = d.image_vectors.location is None and d.source not in RELEASED
    # `corpus.undecodable`: a picture of each product without a title; released splits keep all
    images = UNTITLED * s.products if looks else 0.0
    work = [
        Work(what="clean rows", core_seconds=s.products / rates.ROWS, one_core=True),
        Work(
            what="look at pictures",
            core_seconds=images / rates.PICTURES,
            read=images * s.picture_bytes,
        ),
    ]
    rows = s.products * (20 + 2 * s.tokens) + s.references * KEY / 2
    return Stage("curate", [Phase("clean", work, held)], {"data/curated": rows + pairs * 3})


def precompute(run: Run) -> Stage:
    """`pipeline.precompute`: pictures decoded once; tokens; what the frozen parts give."""
    phases = []
    modalities = run.params.encoder.modalities
    if "image" in modalities:
        phases += _pictures(run)
    if {"text", "lexical"} & set(modalities):
        phases.append(_titles(run))
    written = sum(precomputed_files(run).values())
    return Stage("precompute", phases, {"data/precomputed": written})


def precomputed_files(run: Run) -> dict[str, float]:
    """{array: bytes} of `data/precomputed` (docs/architecture.md, Artifacts)."""
    s, e, n = run.sizes, run.params.encoder, run.network
    out = {}
    if "image" in e.modalities:
        image = n.encoders["image"]
        out["pixels" if image.kind == "inputs" else "image_inputs"] = s.images * image.stored
        out["image_rows"] = s.references * INT + s.products * LONG
    if "text" in e.modalities:
        out["tokens"] = s.products * (e.text.max_tokens + 1.0) * INT
        if n.encoders["text"].kind != "inputs":
            out["text_inputs"] = s.products * n.encoders["text"].stored
    if "lexical" in e.modalities:
        out["lexical"] = s.products * (LONG + s.tokens * INT)
    out["encoders"] = sum(x.parameters for x in n.encoders.values()) * float(FLOAT)
    return out


def _pictures(run: Run) -> list[Phase]:
    s, e, image = run.sizes, run.params.encoder.image, run.network.encoders["image"]
    files = precomputed_files(run)
    keys = s.references * (LONG + 81 + 3 * 4 * KEY + 2 * LONG)
    held = [
        *run.libraries(),
        Held("keys of pictures", keys, "download.max_images"),
        Held("weights of E_V", image.parameters * float(FLOAT), "encoder.image.name", True),
        Held("a batch of E_V", _batch(run), "encoder.image.size", True),
        Held("decoding processes", DECODER * run.machine.cores),
    ]
    trunk = Work(what="frozen part of E_V", flop=s.images * image.frozen)
    decode = Work(what="decode", core_seconds=s.images / rates.PICTURES)
    if e.kind == "vectors":
        return [Phase("copy vectors", [Work(what="read", read=files["image_inputs"])], held[:2])]
    out = []
    if e.self_supervised_epochs:
        steps = e.self_supervised_epochs * VIEWS * (s.train + s.labels) * _share_known(run)
        whole = whole_image_step(e)
        start = Work(what="start of E_V", flop=steps * whole.step)
        saved = VIEWS * PRODUCTS * whole.saved * (BF16 if run.machine.has_gpu else 1)
        backward = Held("kept for the backward pass", saved, "encoder.image.size", True)
        out = [Phase("decode", [decode], held), Phase("start of E_V", [start], [*held, backward])]
        out.append(Phase("frozen part of E_V", [trunk], held))
    else:
        out.append(Phase("decode and frozen part of E_V", [decode, trunk], held, overlaps=True))
    if image.kind == "descriptors":  # their mean and standard deviation
        every = Held("descriptors", 2 * s.images * image.stored, "encoder.image.name")
        out.append(Phase("statistics of pictures", [], [*held, every]))
    return out


def _share_known(run: Run) -> float:
    """Of train datapoints and labels, those that are distinct products."""
    s = run.sizes
    most = max(s.train + s.labels, 1)
    return min(max(s.train, s.labels, s.products - run.asked), most) / most


def _batch(run: Run) -> float:
    """Bytes of a batch in E_V, forward: pixels in float32 and a few layers' outputs."""
    s = run.params.encoder.image
    return DECODED_AT_ONCE[run.machine.has_gpu] * s.size**2 * 3 * FLOAT * 8.0


def _titles(run: Run) -> Phase:
    s, e = run.sizes, run.params.encoder
    text = s.products * (70 + TITLE * s.tokens)
    held = [*run.libraries(), Held("titles", text, "curate.max_products")]
    work = [Work(what="tokens", core_seconds=s.products / rates.TITLES)]
    if "text" in e.modalities:
        encoder = run.network.encoders["text"]
        held.append(Held("weights of E_T", encoder.parameters * 4.0, "encoder.text.name", True))
        held.append(Held("tokens", s.products * (e.text.max_tokens + 1.0) * INT))
        work.append(Work(what="frozen part of E_T", flop=s.products * encoder.frozen))
        if encoder.kind == "descriptors":
            held.append(Held("descriptors of titles", s.products * encoder.stored))
    if "lexical" in e.modalities:
        words = s.products * s.tokens * (LONG * 2 + 60)
        held.append(Held("title words", words, "encoder.lexical.ngrams"))
    return Phase("titles", work, held)
