"""What `export` writes: equal to the model, usable without this library, whole or not there."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mufin.code import ROOT
from mufin.corpus.decoding import decode_each
from mufin.errors import MufinError
from mufin.nn.embedding import joint_vectors
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.serving import export as exporting
from mufin.serving import vector_tables
from mufin.serving.export import export
from mufin.serving.faiss_rows import write_faiss
from mufin.serving.query import Query
from mufin.serving.recommender import Recommender
from tests.support.stages import FINISHED, SIZE, inside, pictures_of, run_stages

PAGE = ROOT / "docs/export.md"
QUERIES = 100
ONNX_NAME = {"float32": "float", "int64": "int64", "uint8": "uint8"}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch) -> None:
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")


def exported_of(home: Path, folder: Path, **options) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUFIN_DEVICE", "cpu")
        patch.setenv("MUFIN_WORKERS", "1")
        list(export(home, folder / "exported", **options))
    return folder / "exported"


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    return exported_of(finished, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def served(finished) -> Recommender:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUFIN_DEVICE", "cpu")
        return Recommender.load(finished)


@pytest.fixture(scope="module")
def varied(tmp_path_factory) -> Path:
    """A run without A_C, whose encoders train in part, and whose first networks search."""
    home = tmp_path_factory.mktemp("varied")
    changes = {
        "transfer.a_c": "none",
        "retrieve.model": "pretrain",
        "encoder.image.trainable_blocks": 1,
        "encoder.text.trainable_layers": 1,
        "encoder.descriptor_norm": True,
        "attention.pool": "means",
        "attention.gates": True,
        "evaluate.mix": "fixed",
    }
    with inside(home, **FINISHED | changes):
        run_stages(home)
    return home


def code_of_page() -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


def outside(exported: Path) -> SimpleNamespace:
    """What the code of the page defines, executed beside an export, without this library."""
    names: dict = {}
    code, before = code_of_page(), os.getcwd()
    assert "mufin" not in "".join(re.findall(r"^(?:import|from).*", code, re.MULTILINE))
    os.chdir(exported.parent)
    try:
        exec(compile(code, str(PAGE), "exec"), names)
    finally:
        os.chdir(before)
    # its functions read the files of the export again and again
    names["FOLDER"] = str(exported)
    return SimpleNamespace(**names)


@pytest.fixture(scope="module")
def page(exported) -> SimpleNamespace:
    return outside(exported)


def questions(served: Recommender, folder: Path) -> list[tuple[int, str, list[Path]]]:
    """Rows, titles and picture files of 100 products; those that training has not seen first."""
    home, model = served.model.home, served.model
    rows: list[int] = []
    for name in ("test", "valid"):
        rows += pq.read_table(home / f"data/curated/{name}.parquet")["product"].to_pylist()
    seen = set(rows)
    rows += [row for row in range(len(model.uids)) if row not in seen]
    contents, out = pictures_of(home), []
    for row in rows:
        keys = [
            key
            for key in model.picture_keys(row)
            if not isinstance(decode_each([contents[key]], SIZE)[0], str)
        ]
        files = [folder / key for key in keys]
        for path in files:
            path.write_bytes(contents[path.name])
        if model.title(row) or files:
            out.append((row, model.title(row), files))
    return out[:QUERIES]


def alike(served: Recommender, asked: list, nearest: Callable) -> int:
    """For how many products `nearest` finds the ten labels of our search, as near as there.

    Labels of equal similarity may be in another order: products with the same picture are equally
    near, up to the last bit.
    """
    x = served.model.predictor.embed(np.array([row for row, _, _ in asked]))
    ours, same = served.model.predictor.retrieve(x, 10, None), 0
    for (_, title, files), labels, similarity in zip(asked, *ours, strict=True):
        found, theirs = zip(*nearest(title, files))
        same += set(found) == set(labels) and len(found) == 10 and near(theirs, similarity)
    return same


def near(a: Sequence[float], b: Sequence[float]) -> bool:
    return float(np.abs(np.array(a) - np.array(b)).max()) < 1e-5


def column(path: Path, name: str) -> np.ndarray:
    return np.array(pq.read_table(path)[name].to_pylist())


# Equal to the model


def test_rows_are_those_of_the_search(exported, served):
    source = served.model.predictor.index.neighbours.source
    assert np.array_equal(column(exported / "rows.parquet", "vector"), source.rows)
    assert np.array_equal(column(exported / "rows.parquet", "label"), source.label)
    assert np.array_equal(column(exported / "rows.parquet", "row"), np.arange(len(source.label)))


def test_kinds_of_rows_are_the_descriptors_of_the_product(exported, served):
    """Against a loop over the labels' titles, words and pictures."""
    table = pq.read_table(exported / "rows.parquet").to_pylist()
    index, model = served.model.predictor.index, served.model
    store, pictured = model.predictor.store, 0
    for label, row in enumerate(index.products):
        mine = [(r["kind"], r["number"]) for r in table if r["label"] == label]
        pictures = [("picture", i) for i in range(len(store.image_lists[row]))]
        title = [("title", 0)] if model.title(int(row)) else []
        words = [("words", 0)] if len(store.lexical[row]) else []
        centroid = [("centroid", 0)] if mine and index.centroids[label].any() else []
        assert mine == title + words + pictures + centroid
        pictured += len(pictures) > 1
    assert pictured > 10


def test_labels_have_their_products_classifiers_and_centroids(exported, served):
    index, model = served.model.predictor.index, served.model
    table = pq.read_table(exported / "labels.parquet")
    rows = [int(row) for row in index.products]
    assert table["uid"].to_pylist() == [model.uids[row] for row in rows]
    assert table["title"].to_pylist() == [model.title(row) for row in rows]
    assert [tuple(c) for c in table["category"].to_pylist()] == [model.category(r) for r in rows]
    assert table["frequency"].to_pylist() == index.frequency.tolist()
    root = np.sqrt(2)
    w = np.concatenate(index.classifiers, 1) / root
    z = np.concatenate([e.vectors for e in index.labels], 1) / root
    for name, wanted in {"w": w, "z": z, "centroid": index.centroids}.items():
        assert np.allclose(column(exported / "labels.parquet", name), wanted, atol=1e-7)
        kind = table.schema.field(name).type
        assert kind.list_size == wanted.shape[1] and str(kind.value_type) == "float"


def test_bags_are_those_of_the_labels(exported, served):
    labels = served.model.predictor.index.labels
    wanted = np.concatenate([e.rows for e in labels], 1)
    assert np.array_equal(column(exported / "bags.parquet", "vector"), wanted)
    label = np.repeat(np.arange(len(labels[0].sizes)), labels[0].sizes)
    assert np.array_equal(column(exported / "bags.parquet", "label"), label)


def test_row_groups_hold_a_bounded_number_of_bytes(finished, served, tmp_path, monkeypatch):
    whole = tmp_path / "whole.parquet"
    vector_tables.write_rows(served.model.predictor.index, whole)
    assert pq.ParquetFile(whole).num_row_groups == 1
    monkeypatch.setattr(vector_tables, "GROUP", 100 * 32 * 4)
    for name, write in {"rows": vector_tables.write_rows, "bags": vector_tables.write_bags}.items():
        write(served.model.predictor.index, tmp_path / name)
        file = pq.ParquetFile(tmp_path / name)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert len(sizes) > 5 and max(sizes) == 100
    assert pq.read_table(whole).equals(pq.read_table(tmp_path / "rows"))
    vector_tables.write_labels(served.model, tmp_path / "labels")
    assert pq.ParquetFile(tmp_path / "labels").num_row_groups > 2


def test_a_row_per_label_is_of_the_kind_label(served, tmp_path):
    """As with `retrieve.vectors: vec`."""
    index = served.model.predictor.index
    z = LabelRows(joint_vectors(index.labels), np.arange(len(index)), len(index))
    neighbours = ExactNeighbours(z, torch.device("cpu"))
    vec = dataclasses.replace(index, vectors="vec", neighbours=neighbours)
    vector_tables.write_rows(vec, tmp_path / "rows.parquet")
    assert set(column(tmp_path / "rows.parquet", "kind")) == {"label"}
    assert np.array_equal(column(tmp_path / "rows.parquet", "vector"), z.rows)


def test_attributes_of_products_are_a_column_where_there_are_some(served, tmp_path):
    model = served.model
    prices = [float(i) for i in range(len(model.uids))]
    kept = dataclasses.replace(model, attributes=pa.table({"price": prices}))
    vector_tables.write_labels(kept, tmp_path / "labels.parquet")
    found = pq.read_table(tmp_path / "labels.parquet")["attributes"].to_pylist()
    assert [row["price"] for row in found] == model.predictor.index.products.tolist()


# Without this library


def test_qdrant_has_the_same_top_10_for_99_of_100_products(page, served, tmp_path):
    asked = questions(served, tmp_path)
    assert len(asked) == QUERIES and alike(served, asked, page.nearest) >= 99


def test_faiss_has_the_same_top_10_for_99_of_100_products(page, served, tmp_path):
    asked = questions(served, tmp_path)
    assert len(asked) == QUERIES and alike(served, asked, page.nearest_by_faiss) >= 99


def test_vectors_by_onnx_are_those_of_the_networks(page, served, tmp_path):
    asked = questions(served, tmp_path)
    embedded = served.model.predictor.embed(np.array([row for row, _, _ in asked]))
    for i, (_, title, files) in enumerate(asked):
        x, bags = page.embedded(title, files, page.said["search"])
        for m, (bag, _) in enumerate(bags):
            mine = embedded[m].rows[slice(*embedded[m].offsets[i : i + 2])]
            assert np.abs(np.sort(bag[0], 0) - np.sort(mine, 0)).max() < 1e-4
        wanted = np.concatenate([e.vectors[i] for e in embedded]) / np.sqrt(2)
        assert np.abs(x - wanted).max() < 1e-5


def without_rest(served: Recommender, uids: list[str], k: int) -> list[list]:
    """Answers by the terms of the score that can be computed outside."""
    mix = {"ridge_weight": 0.0, "vote_weight": 0.0, "pair_weight": 0.0}
    return served.recommend_batch([Query(uids=(uid,), k=k, mix=mix) for uid in uids])


def check_scores(page: SimpleNamespace, served: Recommender, folder: Path) -> None:
    asked = questions(served, folder)[:12]
    uids = [served.model.uids[row] for row, _, _ in asked]
    for (_, title, files), uid, ours in zip(asked, uids, without_rest(served, uids, 10)):
        found = [
            (page.labels["uid"][label].as_py(), s) for label, s in page.ranked(title, files, 11)
        ]
        theirs = [pair for pair in found if pair[0] != uid][:10]
        assert [score for _, score in theirs] == pytest.approx([a.score for a in ours], abs=1e-4)
        assert {u for u, _ in theirs} == {a.uid for a in ours}


def test_the_whole_score_with_attention_is_computed_outside(page, served, tmp_path):
    assert page.said["attention"] and page.said["mix"]["frequency_weight"] >= 0
    check_scores(page, served, tmp_path)


def test_networks_in_parts_and_without_attention_are_computed_outside(varied, tmp_path):
    """E_V and E_T with a frozen part, one network that searches, another that scores, no A_C."""
    folder = exported_of(varied, tmp_path)
    page, served = outside(folder), Recommender.load(varied)
    assert page.said["search"] == ["pretrain-0", "pretrain-1"]
    assert page.said["score"] == ["finetune-0", "finetune-1"]
    assert not page.said["attention"] and not (folder / "bags.parquet").exists()
    assert not list((folder / "onnx").rglob("attention.onnx"))
    asked = questions(served, tmp_path)
    assert len(asked) == QUERIES and alike(served, asked, page.nearest) >= 99
    check_scores(page, served, tmp_path)


# What is refused or checked


def test_early_fusion_is_refused_by_the_name_of_its_setting(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("mufin.nn.mufin.Mufin.fuses", property(lambda self: True))
    model = SimpleNamespace(
        home=finished,
        precomputed=Recommender.load(finished).model.precomputed,
        predictor=SimpleNamespace(retrievers=None),
        params=SimpleNamespace(
            encoder=SimpleNamespace(fusion="early", text=SimpleNamespace(kind="auto"))
        ),
    )
    with pytest.raises(MufinError, match="encoder.fusion is early.*--kinds faiss"):
        exporting._networks(model)


def test_hnsw_of_faiss_finds_the_nearest_rows(served, tmp_path):
    import faiss

    source = served.model.predictor.index.neighbours.source
    said = write_faiss(source, "hnsw", tmp_path / "rows.faiss")
    assert re.fullmatch(r"finds (9\d|100)\.\d% of the 10 nearest rows", said)
    index = faiss.read_index(str(tmp_path / "rows.faiss"))
    assert index.ntotal == len(source.label) and index.metric_type == faiss.METRIC_INNER_PRODUCT
    assert isinstance(faiss.downcast_index(index), faiss.IndexHNSWFlat)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_wrong_index_of_faiss_is_refused(served, tmp_path, monkeypatch, kind):
    import faiss

    other = faiss.IndexFlatIP(32)
    source = served.model.predictor.index.neighbours.source
    other.add(np.ascontiguousarray(-np.asarray(source.rows)))
    monkeypatch.setattr(faiss, "read_index", lambda path: other)
    with pytest.raises(MufinError, match="rows.faiss differ by|finds only"):
        write_faiss(source, kind, tmp_path / "rows.faiss")


def test_facts_name_every_graph_and_its_inputs(exported):
    import onnxruntime

    said = json.loads((exported / "export.json").read_text())
    files = {str(p.relative_to(exported / "onnx")) for p in (exported / "onnx").rglob("*.onnx")}
    assert files == {f"{n}/{part}.onnx" for n, parts in said["graphs"].items() for part in parts}
    for network, parts in said["graphs"].items():
        for part, facts in parts.items():
            path = exported / "onnx" / network / f"{part}.onnx"
            session = onnxruntime.InferenceSession(str(path))
            inputs = {i.name: (i.shape, i.type) for i in session.get_inputs()}
            assert {n: f["shape"] for n, f in facts["inputs"].items()} == {
                name: list(shape) for name, (shape, _) in inputs.items()
            }
            kinds = {n: f"tensor({ONNX_NAME[f['type']]})" for n, f in facts["inputs"].items()}
            assert kinds == {name: kind for name, (_, kind) in inputs.items()}
            assert facts["largest_difference_from_torch"] <= 1e-4
