"""Publication: whole or not at all, on the disk before it is said, and nothing foreign replaced."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mufin.artifacts import publication
from mufin.artifacts.contents import NAME, check, checked, contents_of
from mufin.artifacts.publication import publish, publish_links
from mufin.errors import ArtifactError
from tests.support.artifacts import sealed
from tests.support.projects import ROOT


def content(folder: Path) -> dict[str, str]:
    """{path below the folder: its text}, with hidden files, which temporary ones are."""
    return {
        str(p.relative_to(folder)): p.read_text()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != NAME
    }


def make(path: Path, text: str, folder: bool) -> None:
    """A file, or a folder that is an artifact."""
    if folder:
        (path / "deep").mkdir(parents=True)
        (path / "deep" / text).write_text(text)
        sealed(path)
    else:
        path.write_text(text)


def made(name: str, text: str, folder: bool) -> dict[str, str]:
    return {f"{name}/deep/{text}" if folder else name: text}


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("name", ["target", "old"])
def test_publishing_replaces_the_old_and_leaves_no_temporary_files(tmp_path, folder, name):
    target = tmp_path / "made" / "by" / name
    for text in ("first", "second"):
        with publish(target) as scratch:
            make(scratch, text, folder)
        assert content(target.parent) == made(name, text, folder)
        assert [p.name for p in target.parent.iterdir()] == [name]


def test_linked_artifacts_are_whole_and_made_from_others(tmp_path):
    with publish(tmp_path / "one", {"data/a": "1", "data/b": "2"}) as folder:
        (folder / "deep").mkdir(parents=True)
        (folder / "deep/file").write_text("first")
        (folder / "large").write_text("second")
    publish_links(tmp_path / "one", tmp_path / "home/two", {"data/b": "3"})
    one, two = contents_of(tmp_path / "one"), checked(tmp_path / "home/two")
    assert two.made_from == {"data/a": "1", "data/b": "3"}
    assert two.files == one.files and two.id != one.id
    assert content(tmp_path / "home/two") == content(tmp_path / "one")
    check(tmp_path / "home/two/deep/file")
    shutil.rmtree(tmp_path / "home")
    assert content(tmp_path / "one") == {"deep/file": "first", "large": "second"}


def test_a_damaged_artifact_is_not_linked(tmp_path):
    with publish(tmp_path / "one") as folder:
        make(folder, "text", folder=True)
    (tmp_path / "one/deep/text").write_text("longer text")
    with pytest.raises(ArtifactError, match="text is damaged"):
        publish_links(tmp_path / "one", tmp_path / "two", {})
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "there before"])
@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_and_no_temporary_files(tmp_path, folder, before, fault):
    target = tmp_path / "target"
    if before:
        make(target, "old", folder)
    with pytest.raises(fault), publish(target) as scratch:
        make(scratch, "new", folder)
        raise fault
    assert content(tmp_path) == (made("target", "old", folder) if before else {})
    assert [p.name for p in tmp_path.iterdir()] == ["target"] * before


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_where_nothing_was_made_the_old_stays(tmp_path, folder):
    make(tmp_path / "target", "old", folder)
    with pytest.raises(FileNotFoundError), publish(tmp_path / "target"):
        pass
    assert content(tmp_path) == made("target", "old", folder)


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_the_target_is_the_old_until_all_is_written(tmp_path, folder):
    target = tmp_path / "part-0.parquet"
    for before in ({}, made(target.name, "old", folder)):
        if before:
            make(target, "old", folder)
        with publish(target) as scratch:
            make(scratch, "half", folder)
            assert scratch.parent.parent == tmp_path  # beside it: a rename, not a copy
            assert scratch.parent.name.startswith(".")
            assert target.exists() == bool(before)
            shards = list(tmp_path.glob("part-*.parquet"))  # as a reader of shards finds them
            assert shards == ([target] if before else [])
            visible = {k: v for k, v in content(tmp_path).items() if not k.startswith(".")}
            assert visible == before
        assert content(tmp_path) == made(target.name, "half", folder)
        shutil.rmtree(target) if folder else target.unlink()


def test_a_process_killed_while_publishing_leaves_the_old(tmp_path):
    (tmp_path / "target").write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mufin.artifacts.publication import publish\n"
        "with publish(Path(sys.argv[1])) as scratch:\n"
        "    scratch.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "target")], cwd=ROOT, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "target").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["target"]
    with publish(tmp_path / "target") as scratch:
        scratch.write_text("new")
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_foreign_folder_is_never_replaced(tmp_path, folder):
    target = tmp_path / "holidays"
    (target / "2024").mkdir(parents=True)
    (target / "2024/beach.jpg").write_text("mine")
    with pytest.raises(ArtifactError, match="holds files that the pipeline did not write"):
        with publish(target) as scratch:
            make(scratch, "new", folder)
    assert content(tmp_path) == {"holidays/2024/beach.jpg": "mine"}


def test_a_file_never_replaces_a_folder_of_the_pipeline(tmp_path):
    make(tmp_path / "t", "old", True)
    with pytest.raises(ArtifactError, match="/t is a folder, and a file would take its place"):
        with publish(tmp_path / "t") as scratch:
            scratch.write_text("new")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="is a folder"):
        with publish(tmp_path / "empty") as scratch:
            scratch.write_text("new")
    assert content(tmp_path) == made("t", "old", True)


def test_a_file_that_was_put_into_an_artifact_is_not_lost(tmp_path):
    make(tmp_path / "t", "old", True)
    (tmp_path / "t/deep/notes.txt").write_text("mine")
    (tmp_path / "t/.DS_Store").write_text("of a desktop: does not count")
    with pytest.raises(ArtifactError, match="deep/notes.txt is not of the pipeline and would be"):
        with publish(tmp_path / "t") as scratch:
            make(scratch, "new", True)
    (tmp_path / "t/deep/notes.txt").unlink()
    with publish(tmp_path / "t") as scratch:
        make(scratch, "new", True)
    assert content(tmp_path) == made("t", "new", True)


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_never_replaces_a_file_or_a_link(tmp_path, link):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "t"
    target.symlink_to("elsewhere") if link else target.write_text("mine")
    with pytest.raises(ArtifactError, match=f"is a {'link' if link else 'file'}, and a folder"):
        with publish(target) as scratch:
            make(scratch, "new", True)
    assert target.is_symlink() if link else target.read_text() == "mine"


def test_a_file_replaces_a_link_and_not_what_it_points_to(tmp_path):
    """As DVC's links into its cache, whose content must not change."""
    (tmp_path / "cached").write_text("old")
    (tmp_path / "t").symlink_to("cached")
    with publish(tmp_path / "t") as scratch:
        scratch.write_text("new")
    assert (tmp_path / "cached").read_text() == "old" and not (tmp_path / "t").is_symlink()


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "there before"])
def test_files_then_folders_are_on_disk_before_the_rename(tmp_path, monkeypatch, folder, before):
    calls, names, target = [], {}, tmp_path / "t"
    fsync, open_, rename = os.fsync, os.open, os.rename
    replace, exchange = os.replace, publication._exchange
    if before:
        make(target, "old", folder)

    def opened(path, *args, **kwargs):
        names[file := open_(path, *args, **kwargs)] = Path(path)
        return file

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", lambda f: calls.append(("sync", names[f].name)) or fsync(f))
    renamed = lambda f: lambda a, b: calls.append(("rename", Path(b).name)) or f(a, b)  # noqa: E731
    monkeypatch.setattr(os, "replace", renamed(replace))
    monkeypatch.setattr(os, "rename", renamed(rename))
    monkeypatch.setattr(publication, "_exchange", renamed(exchange))
    with publish(target) as scratch:
        make(scratch, "new", False) if not folder else (scratch / "deep").mkdir(parents=True)
        if folder:
            (scratch / "deep/new").write_text("new")
    inner = [("sync", "new"), ("sync", "deep"), ("sync", NAME)] if folder else []
    assert calls[:1] == inner[:1] or not folder
    assert sorted(calls[: len(inner)]) == sorted(inner)
    if folder:
        assert calls.index(("sync", "new")) < calls.index(("sync", "deep"))
    assert calls[len(inner) :] == [("sync", "t"), ("rename", "t"), ("sync", tmp_path.name)]


@pytest.mark.parametrize("atomic", [True, False], ids=["exchange", "two renames"])
def test_an_interrupt_between_renames_leaves_the_old_or_the_new(tmp_path, monkeypatch, atomic):
    make(tmp_path / "t", "old", True)
    if not atomic:
        monkeypatch.setattr(publication.ctypes, "CDLL", lambda *a, **k: object())
    replace, calls = os.replace, []

    def interrupted(a, b):
        calls.append(a)
        if len(calls) == 2:  # the old one has been moved away
            raise KeyboardInterrupt
        replace(a, b)

    monkeypatch.setattr(os, "replace", interrupted)
    if atomic:
        with publish(tmp_path / "t") as scratch:
            make(scratch, "new", True)
        assert not calls and content(tmp_path) == made("t", "new", True)
    else:
        with pytest.raises(KeyboardInterrupt), publish(tmp_path / "t") as scratch:
            make(scratch, "new", True)
        assert content(tmp_path) == made("t", "old", True)


KILLED = """
import os, signal, sys
from pathlib import Path
from mufin.artifacts import publication
point = sys.argv[2]
class Libc: pass
if point == "between":
    publication.ctypes.CDLL = lambda *a, **k: Libc()
    replace, calls = os.replace, []
    def dying(a, b):
        replace(a, b); calls.append(a)
        os.kill(os.getpid(), signal.SIGKILL)
    os.replace = dying
with publication.publish(Path(sys.argv[1])) as scratch:
    scratch.mkdir(); (scratch / "new").write_text("new")
    if point == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("point", ["writing", "between"])
def test_the_next_run_sweeps_what_a_kill_left(tmp_path, point):
    make(tmp_path / "t", "old", True)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "t"), point], cwd=ROOT, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".t.")]
    assert (tmp_path / "t").exists() == (point == "writing")
    with pytest.raises(ValueError), publish(tmp_path / "t"):
        raise ValueError  # nothing new: only the sweep has an effect
    assert content(tmp_path) == made("t", "old", True)  # put back where it had been moved away
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_the_folder_of_a_process_that_runs_is_not_swept(tmp_path):
    with publish(tmp_path / "t") as first:
        first.write_text("first")
        with publish(tmp_path / "t") as second:
            second.write_text("second")
        assert first.read_text() == "first"
    assert (tmp_path / "t").read_text() == "first"


def test_folders_that_only_look_alike_are_not_swept(tmp_path):
    for name in (".t.backup01", ".t.old", "t.mufin-abcdefgh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    with publish(tmp_path / "t") as scratch:
        scratch.write_text("new")
    assert len(content(tmp_path)) == 4


def _publishing(target: Path, text: str) -> None:
    for _ in range(30):
        with publish(target) as scratch:
            scratch.mkdir()
            (scratch / "one").write_text(text)


def test_processes_that_publish_at_once_leave_one_whole_folder(tmp_path):
    context = multiprocessing.get_context("forkserver")
    texts = ("a", "b", "c")
    running = [context.Process(target=_publishing, args=(tmp_path / "t", t)) for t in texts]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    (found,) = content(tmp_path).values()
    assert found in texts and len(contents_of(tmp_path / "t").files) == 1
