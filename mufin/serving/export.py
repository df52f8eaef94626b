"""A trained model as files that other programs read: Parquet, FAISS and ONNX (docs/export.md)."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import cast

import numpy as np

from mufin.artifacts.contents import contents_of, foreign
from mufin.artifacts.files import write_json
from mufin.artifacts.publication import publish
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.corpus.tokens import WORD, load_tokenizer, tokenise
from mufin.errors import ArtifactError, MufinError, shown
from mufin.nn.assembly import load_members
from mufin.nn.clip_image_encoder import ClipImageEncoder
from mufin.nn.given_vectors import GivenVectors
from mufin.nn.image_encoder import ImageEncoder
from mufin.nn.mufin import Mufin
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.outputs import checked_folder, move_aside
from mufin.serving import onnx_graphs
from mufin.serving.faiss_rows import FLAT, HNSW, write_faiss
from mufin.serving.model import Model, load_model
from mufin.serving.onnx_graphs import Graph, write_graph
from mufin.serving.vector_tables import titled_labels, write_bags, write_labels, write_rows

FACTS = "export.json"
FORMAT = 1  # of export.json
PACKAGES: dict[str, tuple[str, ...]] = {
    "vectors": (),
    "faiss": ("faiss",),
    "onnx": ("onnx", "onnxruntime"),
}
KINDS = (*PACKAGES, "all")
ENCODER_FILES = {"encoder.json", "weights.safetensors"}  # beside those of the tokenizer
TITLES = 4  # of the catalog, with which the graph of titles is tried


def export(
    folder: Path, out: Path, kinds: str = "all", faiss: str = FLAT, force: bool = False
) -> Iterator[str]:
    """Writes what `dvc repro` made in `folder` for other programs into the folder `out`.

    `kinds` is vectors (Parquet), faiss or onnx (both with the vectors), or all. `faiss` is flat or
    hnsw. Each line that is returned says what was just written; `out` is there, whole, after the
    last one. Raises MufinError for what cannot be exported, and for an `out` that holds other
    files; `force` moves these aside.
    """
    if kinds not in KINDS:
        raise MufinError(f"kinds is {shown(kinds)}; give {', '.join(KINDS)}")
    if faiss not in (FLAT, HNSW):
        raise MufinError(f"faiss is {shown(faiss)}; give {FLAT} or {HNSW}")
    wanted = list(PACKAGES) if kinds == "all" else [kinds]
    _check_packages([package for kind in wanted for package in PACKAGES[kind]])
    _check_apart(folder, out)
    checked_folder(out, is_export, "an export of this command alone", force)
    return _written(load_model(folder), out, wanted, faiss)


def is_export(folder: Path) -> bool:
    """Whether `export` wrote the folder and all that is in it."""
    try:
        contents = contents_of(folder)
    except ArtifactError:
        return False
    return FACTS in contents.files and not foreign(contents)


def _check_packages(names: list[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            raise MufinError(
                f"{name} is not installed, which writes this export; run "
                "`pip install 'mufin-pipeline[export]'`, or give --kinds vectors"
            ) from None


def _check_apart(folder: Path, out: Path) -> None:
    """Raises MufinError if `out` would take the place of what is exported."""
    try:
        target = Path(os.path.realpath(out))
        for name in ("data", "models"):
            source = Path(os.path.realpath(folder / name))
            if target == source or target in source.parents or source in target.parents:
                raise MufinError(
                    f"{out} is where the model to export is ({source}); name another folder"
                )
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        raise MufinError(f"{out} cannot be written: {reason}; name another folder") from None


def _written(model: Model, out: Path, wanted: list[str], faiss: str) -> Iterator[str]:
    networks = _networks(model) if "onnx" in wanted else {}
    with _in_place_of(out) as aside:
        with publish(out, _made_from(model)) as scratch:
            scratch.mkdir()
            yield from _vectors(model, scratch)
            if "faiss" in wanted:
                source = model.predictor.index.neighbours.source
                found = write_faiss(source, faiss, scratch / "rows.faiss")
                yield f"rows.faiss: {faiss}; {found}"
            graphs: dict[str, dict] = {}
            if networks:
                _copy_query_files(model, scratch)
            for name, network in networks.items():
                graphs[name] = yield from _graphs(model, network, scratch / "onnx" / name)
            write_json(_facts(model, networks, graphs), scratch / FACTS)
        if aside:
            yield f"what was in {out} is in {aside} now"
        yield f"{out}: whole"


@contextlib.contextmanager
def _in_place_of(out: Path) -> Iterator[Path | None]:
    """Moves aside a folder that `export` did not write; back, where the block fails."""
    aside = None
    if out.is_dir() and any(out.iterdir()) and not is_export(out):
        aside = move_aside(out)
    try:
        yield aside
    except BaseException:
        if aside and not out.exists():
            os.rename(aside, out)
        raise


def _made_from(model: Model) -> dict[str, str]:
    names = ("data/curated", "models/finetune", "models/index")
    return {name: contents_of(model.home / name).id for name in names}


def _vectors(model: Model, scratch: Path) -> Iterator[str]:
    index = model.predictor.index
    write_labels(model, scratch / "labels.parquet")
    yield f"labels.parquet: {len(index):,} labels"
    titled = titled_labels(model)
    write_rows(index, scratch / "rows.parquet", titled)
    yield f"rows.parquet: {len(index.neighbours.source.label):,} rows of the search"
    if _attends(model.predictor.networks):
        write_bags(index, scratch / "bags.parquet", titled)
        yield f"bags.parquet: {len(index.labels[0].rows):,} rows of bags"


def _attends(networks: list[Mufin]) -> bool:
    """Whether a datapoint is adapted to each label before it is scored."""
    return not isinstance(networks[0].cross_attention, NoCrossAttention)


# The networks


def _networks(model: Model) -> dict[str, Mufin]:
    """The networks with their encoders, on the CPU, by the name of their folder in the export.

    Raises MufinError if title and pictures go through one encoder together.
    """
    stages = ["finetune"] + (["pretrain"] if model.predictor.retrievers else [])
    out: dict[str, Mufin] = {}
    for stage in stages:
        members = load_members(model.home / "models" / stage, model.precomputed)
        out |= {f"{stage}-{m}": member.network for m, member in enumerate(members)}
    if any(network.fuses for network in out.values()):
        fusion = model.params.encoder.fusion
        kind = model.params.encoder.text.kind
        name = f"encoder.fusion is {fusion}" if fusion != "late" else f"encoder.text.kind is {kind}"
        raise MufinError(
            f"{name}, so that one encoder reads title and pictures together, which has no ONNX "
            "graph here; leave networks out with --kinds faiss"
        )
    return out


def _graphs(model: Model, network: Mufin, folder: Path) -> Generator[str, None, dict]:
    """Writes the graphs of a network, and returns what `export.json` says of them."""
    folder.mkdir(parents=True)
    facts = {}
    for name, graph in _parts(model, network).items():
        difference = write_graph(graph, folder / f"{name}.onnx")
        facts[name] = graph.facts(difference)
        yield f"onnx/{folder.name}/{name}.onnx: differs by at most {difference:.1e} from torch"
    return facts


def _parts(model: Model, network: Mufin) -> dict[str, Graph]:
    settings = model.params.encoder
    out: dict[str, Graph] = {}
    if "text" in network.encoders:
        out["text"] = onnx_graphs.text_graph(network, _sample_tokens(model))
    if "image" in network.encoders:
        out["image"] = onnx_graphs.image_graph(network, settings.image.size)
    if "lexical" in network.encoders:
        out["lexical"] = onnx_graphs.words_graph(network)
    out["bag"] = onnx_graphs.bag_graph(network)
    if network.classifiers is not None and _attends([network]):
        out["attention"] = onnx_graphs.attention_graph(network)
    return out


def _sample_tokens(model: Model) -> np.ndarray:
    """The tokens of a few titles, cut to the shortest of these."""
    tokenizer = load_tokenizer(str(model.precomputed.stored_encoder("text")))
    some = [title for title in model.products["title"][:1000].to_pylist() if title]
    longest = sorted(some, key=len)[-TITLES:] or ["a title"]
    tokens, lengths = tokenise(tokenizer, longest, model.params.encoder.text.max_tokens)
    return tokens[:, : lengths.min()]


def _copy_query_files(model: Model, scratch: Path) -> None:
    """The tokenizer and the known title words, if these are in use."""
    names = model.params.encoder.modalities
    if "text" in names:
        source = model.precomputed.stored_encoder("text")
        ignored = shutil.ignore_patterns(*ENCODER_FILES)
        shutil.copytree(source, scratch / "tokenizer", ignore=ignored)
    if "lexical" in names:
        write_json(model.precomputed.lexical_terms(), scratch / "terms.json")


# What the files are, for programs and people


def _facts(model: Model, networks: dict[str, Mufin], graphs: dict[str, dict]) -> dict:
    predictor = model.predictor
    index, scored = predictor.index, [name for name in networks if name.startswith("finetune")]
    searched = [name for name in networks if name.startswith("pretrain")] or scored
    out = {
        "format": FORMAT,
        "model": model.id,
        "labels": len(index),
        "dimensions": int(index.neighbours.source.rows.shape[1]),
        "members": len(predictor.networks),
        "mix": model.mix.weights(),
        "attention": _attends(predictor.networks),
        "modality": {"text": TEXT, "image": IMAGE, "lexical": LEXICAL, "padding": -1},
    }
    if networks:
        query = _query(model, next(iter(networks.values())))
        out |= {"search": searched, "score": scored, "query": query, "graphs": graphs}
    return out


def _query(model: Model, network: Mufin) -> dict:
    """How titles and pictures become the inputs of the graphs."""
    settings = model.params.encoder
    out: dict[str, dict] = {}
    if "text" in network.encoders:
        out["text"] = {"tokenizer": "tokenizer", "max_tokens": settings.text.max_tokens}
        if model.texts is not None:
            out["text"]["max_texts"] = model.most_texts
    if "lexical" in network.encoders:
        lexical = {"terms": "terms.json", "ngrams": settings.lexical.ngrams}
        out["lexical"] = lexical | {"word": WORD.pattern, "lower_case": True}
    if "image" in network.encoders:
        out["image"] = _of_pictures(network, settings.image.size)
    return out


def _of_pictures(network: Mufin, size: int) -> dict:
    encoder = cast(ImageEncoder | ClipImageEncoder | GivenVectors, network.encoders["image"])
    if isinstance(encoder, GivenVectors):
        return {"vectors": encoder.width}
    return {
        "size": size,
        "background": 255,
        "resize": "bicubic",
        "normalised_in_graph": encoder.scale.facts(),
    }
