"""Damaged artifacts: 60 of them, each refused in one sentence by what reads it and by verify."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mufin.artifacts.contents import NAME, contents_of, seal
from mufin.artifacts.verification import verify
from mufin.errors import ArtifactError
from mufin.serving.recommender import Recommender
from tests.support.stages import FINISHED, inside, stage

COUNT, SEED = 60, 10


def stage_of(name: str) -> Callable[[Path], object]:
    return lambda home: stage(name).main(home)


def recommender(home: Path) -> None:
    Recommender.load(home).recommend(title="a mug", k=3)


# the first that reads a folder -> the files of it that this one reads
READERS = {
    "data/raw": (stage_of("curate"), ("products.parquet", "image_log.parquet", "source.json")),
    "data/curated": (stage_of("index"), ("labels", "train", "valid", "test")),
    "data/precomputed": (recommender, ("",)),
    "data/embeddings": (stage_of("transfer"), ("",)),
    "data/shortlists": (stage_of("finetune"), ("train", "valid")),
    "models/pretrain": (stage_of("retrieve"), ("",)),
    "models/transfer": (stage_of("finetune"), ("",)),
    "models/finetune": (recommender, ("",)),
    "models/index": (recommender, ("",)),
    "data/predictions": (None, ()),
}


def flipped(content: bytes, rng: random.Random) -> bytes:
    """64 changed bytes, or all of a smaller file."""
    content = bytearray(content)
    for place in rng.sample(range(len(content)), min(64, len(content))):
        content[place] ^= rng.randrange(1, 256)
    return bytes(content)


def damage(path: Path, kind: str, rng: random.Random) -> None:
    content = path.read_bytes()
    path.unlink()
    if kind != "missing":
        made = {
            "flipped": lambda: flipped(content, rng),
            "truncated": lambda: content[: rng.randrange(max(len(content), 1))],
            "longer": lambda: content + b"\0",
            "empty": lambda: b"",
            "{}": lambda: b"{}",
            "zeros": lambda: bytes(len(content)),
        }[kind]()
        path.write_bytes(made if made != content else content + b" ")


def cases(finished: Path) -> list[tuple[str, str, str]]:
    """(folder, file, damage): every file at least once if there is room, else a seeded sample."""
    rng, kinds = random.Random(SEED), ["flipped", "truncated", "longer", "empty", "{}", "zeros"]
    files = [
        (folder, name)
        for folder in READERS
        for name in [NAME, *contents_of(finished / folder).files]
    ]
    rng.shuffle(files)
    chosen = [files[i % len(files)] for i in range(COUNT)]
    return [(*file, rng.choice([*kinds, "missing"])) for file in chosen]


def linked(finished: Path, home: Path, folder: str) -> None:
    """A home with links to all artifacts of the finished run, and a copy of one."""
    home.mkdir()
    for place in ("data", "models"):
        (home / place).mkdir()
        for path in (finished / place).iterdir():
            if not path.name.startswith("."):
                (home / place / path.name).symlink_to(path)
    (home / folder).unlink()
    shutil.copytree(finished / folder, home / folder)


def verified(home: Path) -> list[str]:
    return list(verify(home))


def sentence_of(read: Callable[[Path], object], home: Path) -> str:
    with pytest.raises(ArtifactError) as error:
        read(home)
    said = str(error.value)
    assert len(said) <= 300 and "\n" not in said, said
    return said


def test_every_damaged_artifact_is_refused_in_one_sentence(finished, tmp_path):
    for number, (folder, name, kind) in enumerate(cases(finished)):
        home = tmp_path / str(number)
        linked(finished, home, folder)
        damage(home / folder / name, kind, random.Random(number))
        said = sentence_of(verified, home)
        assert folder in said, (folder, name, kind, said)
        read, files = READERS[folder]
        if read is not None and (name == NAME or name.startswith(files)):
            with inside(home, **FINISHED):
                said = sentence_of(read, home)
            assert folder in said, (folder, name, kind, said)


@pytest.mark.parametrize(
    "folder, reader",
    [
        ("models/finetune", recommender),
        ("models/index", recommender),
        ("data/curated", recommender),
        ("data/precomputed", stage_of("retrieve")),
    ],
)
def test_artifacts_of_another_run_are_refused(finished, tmp_path, folder, reader):
    home = tmp_path / "home"
    linked(finished, home, folder)
    seal(home / folder, {"data/other": "of another run"})
    with inside(home, **FINISHED):
        said = sentence_of(reader, home)
    assert "of different runs; run `dvc repro`" in said
    assert "of different runs" in sentence_of(verified, home)


def test_a_missing_ridge_or_member_is_refused(finished, tmp_path):
    for number, (folder, name) in enumerate(
        [("models/index", "ridge.json"), ("models/finetune", "member-1")]
    ):
        home = tmp_path / str(number)
        linked(finished, home, folder)
        path = home / folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with inside(home, **FINISHED):
            assert f"{folder}/{name}" in sentence_of(recommender, home)
