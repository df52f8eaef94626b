"""E_V for vectors that were given: it passes them on, and its file is checked like others."""

from __future__ import annotations

import json

import pytest
import torch

from mufin.errors import ArtifactError
from mufin.nn.encoder_files import save_encoder
from mufin.nn.given_vectors import GivenVectors, given_encoder
from mufin.nn.vision_language import load_encoder


@pytest.mark.parametrize("seed", [None, 3])
def test_a_saved_encoder_passes_on_vectors_as_they_are(tmp_path, seed):
    save_encoder(given_encoder(5), tmp_path)
    encoder = load_encoder(tmp_path, seed)
    assert isinstance(encoder, GivenVectors)
    assert (encoder.kind, encoder.width) == ("descriptors", 5)
    assert not list(encoder.parameters())
    vectors = torch.randn(4, 5).half()
    assert torch.equal(encoder(vectors), vectors.float())


@pytest.mark.parametrize("width", [None, 0, -1, 1.5, True, 10**30, "5", [5]])
def test_a_wrong_width_is_one_sentence(tmp_path, width):
    save_encoder(given_encoder(5), tmp_path)
    facts = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps(facts | {"given_width": width}))
    with pytest.raises(ArtifactError, match="cannot be loaded .given_width is .*`dvc repro"):
        load_encoder(tmp_path)
