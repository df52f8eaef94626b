"""Damaged model folders are a sentence; pictures of any bytes are answered or refused."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mufin.errors import MufinError, sentence
from mufin.serving.query import NewProduct, Query, QueryError
from mufin.serving.recommender import Recommender

READ = (
    "params.yaml",
    "models/mix.json",
    "models/index/contents.json",
    "models/index/index.json",
    "models/index/index.safetensors",
    "models/finetune/contents.json",
    "data/curated/contents.json",
    "data/curated/products.parquet",
    "data/curated/attributes.parquet",
    "data/curated/train.parquet",
    "data/precomputed/manifest.json",
    "data/precomputed/token_lengths.npy",
)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch) -> None:
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")


@pytest.fixture(scope="module")
def served(finished) -> Recommender:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUFIN_DEVICE", "cpu")
        return Recommender.load(finished)


def copied(finished: Path, home: Path) -> Path:
    """The parts of the run that are served."""
    for name in ("data/curated", "data/precomputed", "models/finetune", "models/index"):
        shutil.copytree(finished / name, home / name)
    shutil.copy(finished / "models/mix.json", home / "models")
    shutil.copy(finished / "params.yaml", home)
    return home


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("name", READ)
def test_a_damaged_model_folder_is_refused_in_a_sentence(finished, tmp_path, name):
    home = copied(finished, tmp_path)
    path = home / name
    whole = path.read_bytes()
    for damage in (cut, flipped, lambda _: b"", None):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage(whole))
        if name == "params.yaml" and damage is flipped:
            continue  # one letter of a comment may differ
        with pytest.raises(MufinError) as error:
            Recommender.load(home)
        assert str(error.value) and "\n" not in sentence(str(error.value))
        path.write_bytes(whole)
    assert Recommender.load(home).recommend(title="mug")


def test_a_folder_that_is_no_model_is_a_sentence(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(MufinError):
            Recommender.load(folder)


def a_picture(kind: str, mode: str, size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind)
    return out.getvalue()


PICTURES = [
    a_picture("png", "RGBA", (9, 7)),
    a_picture("png", "I;16", (5, 5)),
    a_picture("jpeg", "L", (33, 20)),
    a_picture("jpeg", "CMYK", (16, 16)),
    a_picture("gif", "P", (8, 8)),
    a_picture("webp", "RGB", (12, 40)),
    a_picture("bmp", "1", (3, 3)),
]


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(PICTURES), st.data())
def test_a_picture_of_any_bytes_is_answered_or_refused(served, content, data):
    """Whole, cut, with bytes changed, with bytes appended, or no picture at all."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(0, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(changed)))
    asked = bytes(changed[:end]) + data.draw(st.binary(max_size=20))
    [result] = served.answers([Query(new=NewProduct("mug", (asked,)), k=3)])
    if isinstance(result, QueryError):
        assert result.field == "images" and "\n" not in sentence(str(result))
    else:
        assert len(result) == 3 and not result[0].fallback
