"""Where an export goes: whole or not there, and nothing of a user's is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mufin.artifacts.contents import contents_of
from mufin.code import ROOT
from mufin.errors import MufinError
from mufin.serving import export as exporting
from mufin.serving.export import export, is_export


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch) -> None:
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")


def exported_of(home: Path, folder: Path, kinds: str) -> Path:
    list(export(home, folder / "exported", kinds))
    return folder / "exported"


def test_a_second_export_replaces_the_first(finished, tmp_path):
    out = exported_of(finished, tmp_path, "faiss")
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
    out = exported_of(finished, tmp_path, "vectors")
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
    out = exported_of(finished, tmp_path, "vectors")
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
