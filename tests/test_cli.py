"""The command line: what its commands print, write and refuse."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mufin.cli import app
from mufin.params import load_params
from mufin.profiles import profile_names, read_profile, settings_of, text_of_profile

ROOT = Path(__file__).parents[1]
PROFILES = profile_names()


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*words: str) -> str:
    """What a command that succeeds prints."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: str) -> str:
    """The one sentence of a command that fails."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("profile", PROFILES)
def test_use_writes_a_complete_valid_file(empty, profile):
    said("use", profile)
    assert (empty / "params.yaml").read_text() == text_of_profile(profile)
    assert load_params(empty / "params.yaml") == read_profile(profile)
    assert said("check") == "params.yaml is valid\n"


@pytest.mark.parametrize("before", PROFILES)
@pytest.mark.parametrize("after", PROFILES)
def test_use_names_exactly_the_changed_settings(empty, before, after):
    said("use", before)
    lines = [line.split() for line in said("use", after).splitlines() if line.startswith("  ")]
    old, new = settings_of(read_profile(before)), settings_of(read_profile(after))
    assert [line[0] for line in lines] == [name for name in new if new[name] != old[name]]
    assert all("->" in line for line in lines)


def test_use_shows_the_values_that_it_overwrites(empty):
    said("use", "sample")
    text = (empty / "params.yaml").read_text()
    (empty / "params.yaml").write_text(text.replace("\n  beta: 0.7 ", "\n  beta: 0.9 "))
    lines = said("use", "sample").splitlines()
    assert re.fullmatch(
        r"params.yaml now has the settings of sample; 1 of \d+ have changed:", lines[0]
    )
    assert lines[1] == "  evaluate.beta  0.9 -> 0.7"
    assert "params.yaml now has the settings of sample, as before\n" in said("use", "sample")


def test_use_replaces_a_broken_file(empty):
    (empty / "params.yaml").write_text("finetune: {gama: 1}")
    assert said("use", "sample").startswith("params.yaml now has the settings of sample\n")
    assert load_params(empty / "params.yaml") == read_profile("sample")


def test_use_asks_for_a_missing_catalog(empty):
    hint = "There is no file catalog.jsonl yet: set download.location"
    assert hint in said("use", "small-catalog")
    assert "There is no" not in said("use", "sample")
    (empty / "catalog.jsonl").write_text("{}")
    assert "There is no" not in said("use", "paper")


@pytest.mark.parametrize("profile", PROFILES)
def test_use_writes_the_variants_of_a_comparison(empty, profile):
    (empty / "compare").mkdir()
    source, target = ROOT / f"params/variants/{profile}.yaml", empty / "compare/variants.yaml"
    assert f"{target.relative_to(empty)} is now params/variants/{profile}" in said("use", profile)
    assert target.read_bytes() == source.read_bytes()
    assert f"is, as before, params/variants/{profile}" in said("use", profile)


def test_an_unknown_profile_is_refused_with_the_nearest(empty):
    assert "smal-catalog is not a profile; did you mean small-catalog?" in refused(
        "use", "smal-catalog"
    )
    assert f"there are {', '.join(PROFILES)}" in refused("use", "xyz")
    assert not list(empty.iterdir())


def test_check_names_the_wrong_setting(empty):
    said("use", "sample")
    text = (empty / "params.yaml").read_text()
    (empty / "params.yaml").write_text(text.replace("\n  gamma:", "\n  gama:", 1))
    assert "pretrain.gama is not a parameter; did you mean" in refused("check")


def test_use_and_check_import_no_heavy_package(empty):
    script = (
        "import sys; from mufin.cli import app\n"
        "for words in (['use', 'sample'], ['check']): app(words, standalone_mode=False)\n"
        "print([n for n in ('torch', 'polars', 'pyarrow', 'numpy', 'dvc') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.endswith("params.yaml is valid\n[]\n")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["recommend"], "no product is given; give product ids"),
        (["recommend", "X"], "products.parquet is missing; run `dvc repro`"),
        (["showcase"], "is missing; run `dvc repro`"),
    ],
)
def test_commands_without_what_they_need_are_refused(empty, words, sentence):
    said("use", "sample")
    assert sentence in refused(*words)


def test_recommend_refuses_no_answers(empty):
    done = CliRunner().invoke(app, ["recommend", "X", "--k", "0"])
    assert done.exit_code == 2 and "--k" in done.stderr
