"""Parts of texts, made as on a machine of a cluster; `test_two_workers.py` has one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mufin.cluster import texts as cluster_texts
from mufin.cluster.settings import Cluster
from mufin.cluster.store import Store
from mufin.cluster.texts import make_text_inputs_on
from mufin.corpus.ragged_tokens import RaggedTokens
from mufin.errors import MufinError
from mufin.nn import text_parts
from mufin.nn.encoder_files import save_encoder
from mufin.nn.text_encoder import TextEncoder, create_text_encoder
from mufin.nn.text_parts import FrozenPart, TokenisedTexts, make_text_inputs

OPTIONS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
TEXTS, SIZE, LONGEST = 150, 16, 9


class Here:
    """In place of a cluster: makes parts in this process, until `stops` are made."""

    device = "cpu"

    def __init__(self):
        self.stops, self.parts = 10**9, list[str]()

    def each(self, create, settings, items):
        work = create(**settings)
        for number, item in enumerate(reversed(items)):  # in any order
            if number == self.stops:
                raise MufinError("the store is full")
            self.parts.append(item["part"])
            yield work(item)


@pytest.fixture
def here(monkeypatch) -> Here:
    engine = Here()

    @contextlib.contextmanager
    def connected(address: str) -> Iterator[Here]:
        yield engine

    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setattr(cluster_texts, "connected", connected)
    monkeypatch.setattr(text_parts, "PART", SIZE * LONGEST)
    return engine


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    (tmp_path / "store").mkdir()
    return Cluster("auto", Store((tmp_path / "store").as_uri()))


def encoder_of(folder: Path, trainable: int) -> TextEncoder:
    """Half or all of it is frozen."""
    torch.manual_seed(0)
    encoder = create_text_encoder("bert", "random", OPTIONS, trainable, 50)
    save_encoder(encoder, folder)
    return encoder


def some_texts(ragged: bool) -> TokenisedTexts:
    """Titles, of which some are missing, or several texts per product in turn."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1 if ragged else 0, LONGEST + 1, TEXTS).astype(np.int32)
    padded = rng.integers(5, 50, (TEXTS, LONGEST + 2)).astype(np.int32)
    there = np.arange(LONGEST + 2) < lengths[:, None]
    tokens = RaggedTokens(padded[there], lengths) if ragged else padded * there
    return TokenisedTexts(tokens, lengths)


def made_here(encoder: TextEncoder, texts: TokenisedTexts, folder: Path) -> bytes:
    """`text_inputs.npy` of a run on one machine."""
    folder.mkdir()
    frozen = FrozenPart(encoder, SIZE, torch.device("cpu"), torch.float32)
    make_text_inputs(texts, folder, frozen)
    return (folder / "text_inputs.npy").read_bytes()


@pytest.mark.parametrize("trainable", [0, 1], ids=["descriptors", "activations"])
@pytest.mark.parametrize("ragged", [False, True], ids=["titles", "several"])
def test_a_cluster_gives_the_bytes_of_one_machine(here, cluster, tmp_path, ragged, trainable):
    encoder, texts = encoder_of(tmp_path / "encoder", trainable), some_texts(ragged)
    wanted = made_here(encoder, texts, tmp_path / "local")
    (tmp_path / "remote").mkdir()
    make_text_inputs_on(cluster, texts, tmp_path / "remote", tmp_path / "encoder")
    assert (tmp_path / "remote/text_inputs.npy").read_bytes() == wanted
    assert len(here.parts) > 3 and not list((tmp_path / "store/runs").rglob("*.json"))
    width = (LONGEST if ragged else LONGEST + 2, 16) if trainable else (16,)
    assert np.load(tmp_path / "remote/text_inputs.npy").shape == (TEXTS, *width)


def test_a_run_that_stopped_goes_on_with_the_parts_that_are_there(
    here, cluster, tmp_path, monkeypatch
):
    encoder, texts = encoder_of(tmp_path / "encoder", 1), some_texts(False)
    wanted = made_here(encoder, texts, tmp_path / "local")
    for name in ("same", "other"):
        (tmp_path / name).mkdir()
    here.stops = 2
    with pytest.raises(MufinError, match="the store is full"):
        make_text_inputs_on(cluster, texts, tmp_path / "same", tmp_path / "encoder")
    first, here.stops = list(here.parts), 10**9
    encoded, real = [], FrozenPart.each
    monkeypatch.setattr(FrozenPart, "each", lambda *a: encoded.append(1) or real(*a))
    monkeypatch.setattr(Store, "remove", lambda store: None)
    make_text_inputs_on(cluster, texts, tmp_path / "same", tmp_path / "encoder")
    rest = here.parts[2:]
    assert len(first) == 2 and not set(first) & set(rest)  # those that were fetched stay
    assert len(encoded) == len(rest)
    make_text_inputs_on(cluster, texts, tmp_path / "other", tmp_path / "encoder")
    assert len(encoded) == len(rest)  # all are in the store
    for name in ("same", "other"):
        assert (tmp_path / name / "text_inputs.npy").read_bytes() == wanted


def test_parts_of_another_encoder_are_made_anew(here, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "remove", lambda store: None)
    texts, made = some_texts(True), []
    for number in range(2):
        encoder = encoder_of(tmp_path / f"encoder-{number}", number)
        (tmp_path / f"{number}").mkdir()
        make_text_inputs_on(cluster, texts, tmp_path / f"{number}", tmp_path / f"encoder-{number}")
        made.append((tmp_path / f"{number}/text_inputs.npy").read_bytes())
        assert made[number] == made_here(encoder, texts, tmp_path / f"local-{number}")
    assert len(list((tmp_path / "store/runs").iterdir())) == 2
