"""The command line: what its commands print, write and refuse."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

from mufin.artifacts.contents import contents_of, seal
from mufin.cli import app
from mufin.commands import recommend
from mufin.params import load_params
from mufin.profiles import profile_names, read_profile, settings_of, text_of_profile
from mufin.reporting.showcase import _signed, is_showcase
from tests.support.answering import TITLES, Answering, answered_by, catalog

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


def edit(path: Path, *changes: tuple[str, str]) -> str:
    """Replaces texts of a file, once each; returns its new text."""
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    return text


@pytest.mark.parametrize("profile", PROFILES)
def test_use_writes_a_complete_valid_file(empty, profile):
    said("use", profile)
    assert (empty / "params.yaml").read_text() == text_of_profile(profile)
    assert load_params(empty / "params.yaml") == read_profile(profile)
    rows = [{"ASIN": a, "title": a, "images": ["a.jpg"], "also_buy": [b]} for a, b in ("ab", "ba")]
    (empty / "catalog.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert said("check").startswith("params.yaml is valid\n")


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


# What is the user's


MINE = (
    ("\n  location: catalog.jsonl", "\n  location: mine.jsonl"),
    ("title: title", "title: name"),
)


def test_use_keeps_the_users_download_section(empty):
    said("use", "small-catalog")
    edit(empty / "params.yaml", *MINE)
    printed = said("use", "paper")
    now, own = load_params(), read_profile("paper")
    assert (now.download.location, now.download.columns.title) == ("mine.jsonl", "name")
    different = {n for n, value in settings_of(now).items() if value != settings_of(own)[n]}
    assert different == {"download.location", "download.columns.title"}
    kept = printed.partition("Kept, because you had set them:\n")[2].splitlines()
    assert kept[0].split() == ["download.location", "mine.jsonl,", "in", "paper", "catalog.jsonl"]
    assert kept[1].split() == ["download.columns.title", "name,", "in", "paper", "title"]
    assert kept[2] == "`mufin use paper --all` takes these from paper too"
    assert "There is no file mine.jsonl yet" in printed
    said("use", "paper", "--all")
    assert load_params() == own


def test_use_keeps_named_encoders_and_what_belongs_to_them(empty):
    said("use", "small-catalog")
    edit(
        empty / "params.yaml",
        ("name: mobilenetv2_100", "name: local-dir:seen"),
        ("max_tokens: 32", "max_tokens: 40"),
        ("name: sentence-transformers/all-MiniLM-L6-v2", "name: read"),
    )
    said("use", "paper")
    image, text, own = (
        load_params().encoder.image,
        load_params().encoder.text,
        read_profile("paper"),
    )
    assert (image.name, image.size) == ("local-dir:seen", 224)
    assert image.trainable_blocks == own.encoder.image.trainable_blocks
    assert (text.name, text.max_tokens) == ("read", 40)
    assert text.trainable_layers == own.encoder.text.trainable_layers


def test_an_encoder_of_another_kind_keeps_how_much_of_it_trains(empty):
    said("use", "small-catalog")
    edit(empty / "params.yaml", ("kind: timm", "kind: clip"), ("mobilenetv2_100", "folder"))
    said("use", "paper")
    assert load_params().encoder.image.trainable_blocks == 0  # the profile has 1


def test_encoders_that_do_not_fit_are_refused_with_the_remedy(empty):
    said("use", "small-catalog")
    changes = (("kind: auto", "kind: visualbert"), ("[text, image, lexical]", "[text, image]"))
    before = edit(empty / "params.yaml", *changes)
    assert "your encoders do not fit to paper" in refused("use", "paper")
    assert (empty / "params.yaml").read_text() == before
    said("use", "paper", "--all")
    assert load_params() == read_profile("paper")


def test_use_keeps_the_valid_parts_of_a_broken_file(empty):
    said("use", "small-catalog")
    edit(empty / "params.yaml", *MINE, ("\nmembers: 3", "\nmembers: none"))
    printed = said("use", "paper")
    assert "The settings before were not valid: members is 'none'; it must be" in printed
    assert load_params().download.location == "mine.jsonl"


def test_settings_that_would_be_lost_are_backed_up(empty):
    params = empty / "params.yaml"
    said("use", "sample")
    said("use", "paper")
    assert [p.name for p in empty.iterdir()] == ["params.yaml"]  # `mufin use sample` has them
    first = edit(params, ("\n  beta: 0.7", "\n  beta: 0.8"))
    assert "The settings before are in params.yaml.bak\n" in said("use", "sample", "--all")
    second = edit(params, ("\n  beta: 0.7", "\n  beta: 0.9"))
    assert "The settings before are in params.yaml.bak2\n" in said("use", "sample", "--all")
    params.write_text(first)
    assert "The settings before are in params.yaml.bak\n" in said("use", "sample", "--all")
    backups = {p.name: p.read_text() for p in empty.iterdir() if p != params}
    assert backups == {"params.yaml.bak": first, "params.yaml.bak2": second}


def test_edited_variants_are_backed_up(empty):
    (empty / "compare").mkdir()
    said("use", "sample")
    variants = empty / "compare/variants.yaml"
    variants.write_text("mine\n")
    assert "before are in compare/variants.yaml.bak\n" in said("use", "paper")
    said("use", "sample")
    assert [p.read_text() for p in (empty / "compare").glob("*.bak*")] == ["mine\n"]


def test_use_replaces_a_foreign_file_by_force_alone(empty):
    notes = empty / "notes.yaml"
    notes.write_text("index: my notes\n")
    assert "notes.yaml is there and is not a settings file" in refused(
        "use", "sample", "--params", "notes.yaml"
    )
    assert notes.read_text() == "index: my notes\n"
    said("use", "sample", "--params", "notes.yaml", "--force")
    assert load_params(notes) == read_profile("sample")
    assert (empty / "notes.yaml.bak").read_text() == "index: my notes\n"
    said("use", "paper", "--params", "notes.yaml")  # it has the head of a settings file now


def test_use_writes_through_a_link(empty):
    (empty / "shared").mkdir()
    (empty / "params.yaml").symlink_to("shared/settings.yaml")
    said("use", "sample")
    assert (empty / "params.yaml").is_symlink()
    assert load_params(empty / "shared/settings.yaml") == read_profile("sample")


def test_use_writes_what_another_path_is_told_to_need(empty):
    """A sentence that names a command tells the truth about it."""
    for name, content in (("other.yaml", b"\xff"), ("folder/params.yaml", b"a: [")):
        (empty / name).parent.mkdir(exist_ok=True)
        (empty / name).write_bytes(content)
        command = re.search(r"`mufin (.*?)` writes a new one", refused("check", "--params", name))
        assert command
        said(*command[1].split())
        said("check", "--params", name)


# The study


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
    built_in = "the catalog is the built-in one of 3,000 products"
    assert done.stdout.endswith(f"params.yaml is valid\n{built_in}\n[]\n")


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


# Answers


@pytest.fixture
def answering(empty, monkeypatch) -> Path:
    """A folder where `mufin recommend` answers at once, without a trained network."""
    answered_by(Answering(), monkeypatch)
    catalog(empty)
    return empty


def test_titles_are_printed_without_control_characters(answering):
    printed = said("recommend", "a")
    assert printed.endswith("\n") and printed[:-1].isprintable() and "é" in printed
    assert json.loads(printed) == {
        "uid": "a",
        "title": "Mug \x1b[2J\u202e\x9b é",
        "recommended": [
            {"uid": "b\u2028", "title": "Jar", "score": 0.5},
            {"uid": "c", "title": "Cup", "score": -0.5},
        ],
    }


def test_recommend_replaces_its_own_answers_alone(answering):
    out = answering / "related.jsonl"
    for content in ("", None):
        if content is not None:
            out.write_text(content)
        said("recommend", "--all", "--out", "related.jsonl")
        assert [json.loads(line)["uid"] for line in out.read_text().splitlines()] == list(TITLES)
    for content in ("my notes", '{"uid": 1}', "[1]", "[" * 100_000, '{"uid": 1, "title": 2}'):
        out.write_text(content)
        assert "--force replaces it" in refused("recommend", "a", "--out", "related.jsonl")
        assert out.read_text() == content
    said("recommend", "a", "--out", "related.jsonl", "--force")
    assert json.loads(out.read_text())["uid"] == "a"


def test_a_line_without_answers_says_why_and_is_an_answer(answering):
    (answering / "none.txt").write_text("a\n")
    limits = ["--candidates", "none.txt"]
    answer = json.loads(said("recommend", "a", *limits))
    assert list(answer) == ["uid", "title", "recommended", "reason"]
    assert answer["recommended"] == [] and "look at --where, --candidates" in answer["reason"]
    for words in (["a", *limits], ["bare"], ["a", "c", "--basket"], ["a"]):
        said("recommend", *words, "--out", "related.jsonl")  # also over the one before


@pytest.mark.parametrize("words", [["recommend", "a"], ["showcase"], ["use", "sample"]], ids=str)
def test_no_command_replaces_a_folder(answering, words):
    (answering / "kept").mkdir()
    (answering / "kept/file").write_text("precious")
    option = "--params" if words[0] == "use" else "--out"
    for force in ([], ["--force"]):
        assert "kept is a folder and stays as it is" in refused(*words, option, "kept", *force)
    assert (answering / "kept/file").read_text() == "precious"
    assert sorted(p.name for p in answering.iterdir()) == ["data", "kept", "params.yaml"]


def test_showcase_knows_its_own_pictures(answering):
    picture = Image.new("RGB", (8, 8))
    picture.save("mine.png")
    picture.save("drawn.png", pnginfo=_signed())
    (answering / "broken.png").write_bytes((answering / "drawn.png").read_bytes()[:40])
    names = ("mine.png", "drawn.png", "broken.png", "params.yaml")
    assert [is_showcase(Path(name)) for name in names] == [False, True, False, False]
    assert is_showcase(ROOT / "docs/answers.png")
    assert "mine.png is there and is not a picture of this" in refused(
        "showcase", "--out", "mine.png"
    )
    assert "is missing; run `dvc repro`" in refused("showcase", "--out", "drawn.png")


@pytest.mark.parametrize("k", ["1001", "1000000000000", "9" * 4000])
def test_more_answers_than_labels_are_refused(answering, k):
    assert "it must be at most 1,000" in refused("recommend", "a", "--k", k)
    said("recommend", "a", "--k", "1000")


def test_pictures_are_read_within_bounds(answering):
    (answering / "a.jpg").write_bytes(b"small")
    assert '"uid": "c"' in said("recommend", "--image", "a.jpg")
    with open(answering / "huge.jpg", "wb") as file:
        file.truncate(2**40)
    assert "huge.jpg cannot be read: it has more than" in refused(
        "recommend", "--image", "huge.jpg"
    )
    assert "it is a folder" in refused("recommend", "--image", ".")
    assert "no.jpg does not exist" in refused("recommend", "--image", "no.jpg")


def test_ascii_terminals_get_ascii(answering, monkeypatch):
    monkeypatch.setattr(recommend, "prints_utf8", lambda: False)
    printed = said("recommend", "a")
    assert printed.isascii() and json.loads(printed)["title"].endswith("é")
    said("recommend", "a", "--out", "a.jsonl")
    assert "é" in (answering / "a.jsonl").read_text(encoding="utf-8")


# Artifacts


@pytest.fixture
def artifact(empty) -> Path:
    (empty / "models/index").mkdir(parents=True)
    (empty / "models/index/a.bin").write_bytes(b"a")
    seal(empty / "models/index", {"models/finetune": "an id"})
    return empty / "models/index"


def test_verify_says_what_is_whole_and_what_is_damaged(artifact):
    assert said("verify").startswith("models/index: 1 files")
    (artifact / "a.bin").write_bytes(b"b")
    assert "models/index/a.bin is damaged" in refused("verify")
    assert "no artifacts" in refused("verify", "--home", "models")


def test_seal_accepts_changed_files(artifact):
    (artifact / "a.bin").write_bytes(b"other")
    (artifact / "b.bin").write_bytes(b"new")
    assert said("seal", "models/index") == "models/index is accepted as it is: 2 files\n"
    said("verify")
    assert contents_of(artifact).made_from == {"models/finetune": "an id"}
    (artifact / "contents.json").write_text("broken")
    said("seal", "models/index")
    said("verify")


def test_seal_accepts_no_folder_but_an_artifact(artifact):
    (artifact.parents[1] / "photos").mkdir()
    for name in ("photos", ".", "nowhere", "models/index/a.bin"):
        assert "models/finetune" in refused("seal", name)
    assert not (artifact.parents[1] / "photos/contents.json").exists()


# Start: version, help, completion


def test_the_version_is_that_of_the_package():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert said("--version") == f"mufin {pyproject['project']['version']}\n"


def test_license_and_citation_name_one_version_and_license():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["version"] == project["version"] and citation["title"] == project["name"]
    assert citation["license"] == project["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    [paper] = citation["references"]
    assert paper["title"] == "Multi-modal Extreme Classification" and len(paper["authors"]) == 10


def test_help_lists_each_command_in_one_whole_sentence():
    lines = said("--help").partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(lines) == len(app.registered_commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


@pytest.mark.parametrize("words, answer", [("mufin us", "use"), ("mufin use sma", "small-catalog")])
def test_the_shell_completes_commands_and_profiles(words, answer):
    done = subprocess.run(
        [sys.executable, "-c", "from mufin.cli import app; app(prog_name='mufin')"],
        cwd=ROOT,
        env=os.environ
        | {
            "_MUFIN_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [answer], done.stderr
