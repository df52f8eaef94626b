"""`benchmarks.fusion` on settings that it cannot compare."""

from __future__ import annotations

import pytest

from benchmarks import fusion
from tests.support.projects import ROOT, changed


def test_settings_without_a_text_encoder_are_one_sentence(tmp_path):
    settings = changed(ROOT / "params.yaml", {"encoder.modalities": ["lexical", "image"]})
    (tmp_path / "params.yaml").write_text(settings)
    with pytest.raises(SystemExit, match="needs text and image; set it to"):
        fusion.main(tmp_path)
