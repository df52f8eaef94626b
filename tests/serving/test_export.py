"""What `export` writes: equal to the model, usable without this library, whole or not there."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from mufin.artifacts.contents import contents_of
from mufin.code import ROOT
from mufin.corpus.decoding import decode_each
from mufin.errors import MufinError
from mufin.serving import export as exporting
from mufin.serving import vector_tables
from mufin.serving.export import export, is_export
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


def test_attributes_of_products_are_a_column_where_there_are_some(served, tmp_path):
    import dataclasses

    import pyarrow as pa

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
    other.add(np.ascontiguousarray(-source.rows))
    monkeypatch.setattr(faiss, "read_index", lambda path: other)
    with pytest.raises(MufinError, match="rows.faiss differ by|finds only"):
        write_faiss(source, kind, tmp_path / "rows.faiss")


# Targets


def test_a_second_export_replaces_the_first(finished, tmp_path):
    out = exported_of(finished, tmp_path, kinds="faiss")
    assert is_export(out) and (out / "rows.faiss").is_file() and not (out / "onnx").exists()
    list(export(finished, out, "vectors"))
    assert sorted(p.name for p in out.iterdir()) == [
        "bags.parquet",
        "contents.json",
        "export.json",
        "labels.parquet",
        "rows.parquet",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["exported"]
    index = contents_of(finished / "models/index").id
    assert contents_of(out).made_from["models/index"] == index


def test_a_folder_with_other_files_stays(finished, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(MufinError, match="mine is there and is not an export .*--force"):
        export(finished, tmp_path / "mine", "vectors")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_export_with_another_file_in_it_stays(finished, tmp_path):
    out = exported_of(finished, tmp_path, kinds="vectors")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(MufinError, match="not an export of this command alone"):
        export(finished, out, "vectors")


def test_force_moves_other_files_aside(finished, tmp_path):
    out = tmp_path / "mine"
    for name in ("mine.bak", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text(name)
    said = list(export(finished, out, "vectors", force=True))
    assert f"what was in {out} is in {out}.bak2 now" in said and is_export(out)
    assert (tmp_path / "mine.bak/notes.txt").read_text() == "mine.bak"
    assert (tmp_path / "mine.bak2/notes.txt").read_text() == "mine"


def test_force_that_fails_leaves_other_files_where_they_are(finished, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    monkeypatch.setattr(exporting, "write_rows", full_disk)
    with pytest.raises(OSError, match="No space left"):
        list(export(finished, tmp_path / "mine", "vectors", force=True))
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["mine", "mine/notes.txt"]


@pytest.mark.parametrize("place", [".", "..", "models", "models/index", "data/new", "models/a/b"])
@pytest.mark.parametrize("force", [False, True])
def test_the_model_itself_is_never_replaced(finished, place, force):
    before = sorted(finished.rglob("*"))
    with pytest.raises(MufinError, match="is where the model to export is"):
        export(finished, finished / place, "vectors", force=force)
    assert sorted(finished.rglob("*")) == before


def test_the_model_is_found_behind_links(finished, tmp_path):
    (tmp_path / "link").symlink_to(finished / "models")
    with pytest.raises(MufinError, match="is where the model to export is"):
        export(finished, tmp_path / "link/index", "vectors", force=True)


@pytest.mark.parametrize("force", [False, True])
def test_files_links_and_names_that_cannot_be_are_refused(finished, tmp_path, force):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "link", "pipe", "file/below", "nul\0", "x" * 300):
        with pytest.raises(MufinError, match="name another folder") as error:
            export(finished, tmp_path / name, "vectors", force=force)
        assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "mine" and (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link", "pipe"]


def test_unknown_kinds_are_refused(finished, tmp_path):
    with pytest.raises(MufinError, match="kinds is 'pickle'; give vectors, faiss, onnx, all"):
        export(finished, tmp_path / "out", "pickle")
    with pytest.raises(MufinError, match="faiss is 'ivf'; give flat or hnsw"):
        export(finished, tmp_path / "out", faiss="ivf")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(MufinError, match="params.yaml"):
        export(tmp_path, tmp_path / "out", "vectors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["faiss", "onnx", "onnxruntime"])
def test_a_missing_package_is_told_before_any_work(finished, tmp_path, monkeypatch, package):
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        @staticmethod
        def find_spec(name, *_):
            if name.split(".")[0] == package:
                raise ModuleNotFoundError(name)

    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    monkeypatch.delattr(exporting, "load_model")  # is not called
    sentence = rf"^{package} is not installed, .*pip install 'mufin-pipeline\[export\]'"
    with pytest.raises(MufinError, match=sentence):
        export(finished, tmp_path / "out")


# Whole or not there


def full_disk(*_) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["write_labels", "write_faiss", "write_graph", "write_json"])
def test_a_full_disk_leaves_what_was_there(finished, tmp_path, monkeypatch, step):
    out = exported_of(finished, tmp_path, kinds="vectors")
    before = contents_of(out).id
    monkeypatch.setattr(exporting, step, full_disk)
    with pytest.raises(OSError, match="No space left"):
        list(export(finished, out))
    assert contents_of(out).id == before and [p.name for p in tmp_path.iterdir()] == ["exported"]


def test_an_export_that_is_not_read_to_its_end_leaves_nothing(finished, tmp_path):
    lines = export(finished, tmp_path / "out", "vectors")
    assert next(lines).startswith("labels.parquet")
    lines.close()
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from mufin.serving import export as exporting
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
exporting.write_rows = killed
list(exporting.export(Path(sys.argv[1]), Path(sys.argv[2]), "vectors"))
"""


def test_a_killed_export_leaves_no_folder_and_the_next_one_cleans_up(finished, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(finished), str(out)]
    assert subprocess.run(command, cwd=ROOT, env=os.environ).returncode == -9
    assert not out.exists() and list(tmp_path.iterdir())
    list(export(finished, out, "vectors"))
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and is_export(out)


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
