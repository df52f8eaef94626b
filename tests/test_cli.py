"""What a person types between two runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from compare.rows import read_wanted
from mufin.cli import app
from mufin.params import load_params

ROOT = Path(__file__).parents[1]
PROFILES = sorted(p.stem for p in (ROOT / "params").glob("*.yaml"))


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_takes_the_place_of_params_and_is_valid(empty, profile):
    assert CliRunner().invoke(app, ["use", profile]).exit_code == 0
    assert (empty / "params.yaml").read_bytes() == (ROOT / f"params/{profile}.yaml").read_bytes()
    load_params(empty / "params.yaml")
    assert CliRunner().invoke(app, ["check"]).exit_code == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_brings_its_variants_where_there_is_a_comparison(empty, profile):
    (empty / "compare").mkdir()
    assert CliRunner().invoke(app, ["use", profile]).exit_code == 0
    assert "mufin" in read_wanted(empty / "compare/variants.yaml").variants


def test_an_unknown_profile_is_refused_with_the_nearest_and_nothing_is_written(empty):
    done = CliRunner().invoke(app, ["use", "smal-catalog"])
    assert done.exit_code == 1 and "did you mean small-catalog?" in done.stderr
    assert not list(empty.iterdir())


def test_check_says_which_setting_is_wrong(empty):
    CliRunner().invoke(app, ["use", "sample"])
    text = (empty / "params.yaml").read_text()
    (empty / "params.yaml").write_text(text.replace("\n  gamma:", "\n  gama:", 1))
    done = CliRunner().invoke(app, ["check"])
    assert done.exit_code == 1 and "gama is not a parameter; did you mean" in done.stderr


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["recommend"], "nothing is asked for"),
        (["recommend", "X"], "products.parquet is missing"),
        (["recommend", "X", "--k", "0"], "--k"),
    ],
)
def test_recommend_without_what_it_needs_says_so(empty, words, sentence):
    CliRunner().invoke(app, ["use", "sample"])
    done = CliRunner().invoke(app, words)
    assert (
        done.exit_code != 0
        and sentence in done.stderr
        and not isinstance(done.exception, TypeError)
    )
