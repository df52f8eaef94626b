"""`mufin verify`: every byte of every artifact, and whether they are of one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mufin.artifacts.contents import contents_of, seal
from mufin.artifacts.files import write_sealed_json
from mufin.artifacts.publication import publish
from mufin.artifacts.verification import verify
from mufin.errors import ArtifactError


def made(home: Path, name: str, *sources: str, text: str = "x" * 100) -> None:
    made_from = {source: contents_of(home / source).id for source in sources}
    with publish(home / name, made_from) as folder:
        (folder / "deep").mkdir(parents=True)
        (folder / "deep/part").write_text(text)


@pytest.fixture
def home(tmp_path) -> Path:
    made(tmp_path, "data/curated")
    made(tmp_path, "data/precomputed", "data/curated")
    made(tmp_path, "models/index", "data/curated")
    made_from = {"models/index": contents_of(tmp_path / "models/index").id}
    write_sealed_json({"beta": 0.5, "made_from": made_from}, tmp_path / "models/mix.json")
    return tmp_path


def test_a_whole_pipeline_has_a_line_per_artifact(home):
    assert list(verify(home)) == [
        "data/curated: 1 files, 0.0 MB, as written",
        "data/precomputed: 1 files, 0.0 MB, as written, from this data/curated",
        "models/index: 1 files, 0.0 MB, as written, from this data/curated",
        "models/mix.json: as written, from this models/index",
    ]


def test_a_part_of_a_pipeline_is_verified_alone(home):
    """As a machine that only serves has it."""
    for name in ("part", "contents.json"):
        next((home / "data/curated").rglob(name)).unlink()
    (home / "data/curated/deep").rmdir()
    (home / "data/curated").rmdir()
    assert [line.partition(":")[0] for line in verify(home)] == [
        "data/precomputed",
        "models/index",
        "models/mix.json",
    ]


@pytest.mark.parametrize("name", ["data/curated", "data/precomputed", "models/index"])
@pytest.mark.parametrize("large", [False, True])
def test_a_flipped_byte_is_found_in_files_of_any_size(home, monkeypatch, name, large):
    if large:
        monkeypatch.setattr("mufin.artifacts.contents.LARGE", 10)
    (home / name / "deep/part").write_text("x" * 57 + "y" + "x" * 42)
    with pytest.raises(ArtifactError, match=f"{name}/deep/part is damaged: its bytes have changed"):
        list(verify(home))


def test_artifacts_of_different_runs_are_found(home):
    made(home, "data/curated", text="another run")
    with pytest.raises(ArtifactError, match="data/precomputed and .*data/curated are of different"):
        list(verify(home))


def test_a_mix_of_another_index_is_found(home):
    made(home, "models/index", "data/curated", text="another run")
    with pytest.raises(ArtifactError, match="mix.json and .*models/index are of different runs"):
        list(verify(home))


def test_a_changed_mix_is_found(home):
    path = home / "models/mix.json"
    path.write_text(path.read_text().replace("0.5", "0.7"))
    with pytest.raises(ArtifactError, match="mix.json is damaged: its bytes have changed"):
        list(verify(home))


def test_unsealed_folders_and_empty_homes_are_named(home, tmp_path_factory):
    (home / "data/mine").mkdir()
    with pytest.raises(ArtifactError, match="data/mine/contents.json is missing"):
        list(verify(home))
    seal(home / "data/mine")
    assert len(list(verify(home))) == 5
    with pytest.raises(ArtifactError, match="has no artifacts in data/ and models/; run `dvc repr"):
        list(verify(tmp_path_factory.mktemp("empty")))
