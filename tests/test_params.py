"""Settings: what they mean, what is refused, and what params.yaml and the profiles hold."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import string
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from mufin import profiles
from mufin.params import Params, ParamsError, load_params, meanings, params_of, sections
from mufin.profiles import read_profile, settings_of, text_of, text_of_profile

ROOT = Path(__file__).parents[1]
PROFILES = profiles.profile_names()
SAMPLE = read_profile("sample")


def yaml_12(text: str) -> dict:
    return YAML(typ="safe", pure=True).load(text)


# Meanings


def sections_of(kind: type, path: str = "") -> Iterator[tuple[str, type]]:
    """(dotted name, dataclass) of a section and of all sections in it."""
    yield path, kind
    for name, part in sections(kind).items():
        yield from sections_of(part, f"{path}.{name}".lstrip("."))


SECTIONS = dict(sections_of(Params))


def said_by(text: str) -> str:
    """The comments of params.yaml as one text."""
    return " ".join(" ".join(re.findall(r"# (.*)", text)).split())


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_has_a_meaning_in_params_yaml(section):
    comments = said_by((ROOT / "params.yaml").read_text())
    said = meanings(SECTIONS[section])
    assert list(said) == [field.name for field in dataclasses.fields(SECTIONS[section])]
    for name, meaning in said.items():
        assert len(meaning) > 10 and "#" not in meaning, name
        parts = meaning.split(profiles.CHOICES)
        assert meaning in comments or " ".join(parts) in comments, name


@pytest.mark.parametrize("section", SECTIONS)
def test_a_meaning_names_every_choice(section):
    kind = SECTIONS[section]
    hints, said = typing.get_type_hints(kind), meanings(kind)
    for name, hint in hints.items():
        kinds = [hint, *typing.get_args(hint)]
        for choices in (k for k in kinds if typing.get_origin(k) is typing.Literal):
            for choice in typing.get_args(choices):
                assert re.search(rf"\b{choice}\b", said[name]), f"{section}.{name}: {choice}"


@pytest.mark.parametrize(
    "name, where",
    [
        ("Module I,", "pretrain"),
        ("Module II,", "retrieve"),
        ("Module III,", "transfer"),
        ("Module IV,", "finetune"),
    ],
)
def test_a_section_names_its_module(name, where):
    meaning = meanings(Params)[where]
    assert name in meaning and "Sec. 3.1" in meaning and f"stage {where}" in meaning


# Profiles


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_says_purpose_hardware_time_and_metrics(profile):
    lines = (ROOT / f"params/{profile}.yaml").read_text().splitlines()
    header = [line for line in lines[: lines.index("")] if line.startswith("# ")]
    assert len(header) == lines.index("")
    titles = [line.split()[1] for line in header if line[2] != " "]
    assert titles == ["For:", "Hardware:", "Time:", "Metrics:"]
    time_and_metrics = " ".join(header).split("Time:")[1].split("Metrics:")
    assert all(re.search(r"not measured|\d", part) for part in time_and_metrics)


@pytest.mark.parametrize("profile", sorted({*PROFILES} - {"sample"}))
def test_a_profile_holds_only_what_differs(profile):
    changes = yaml_12((ROOT / f"params/{profile}.yaml").read_text())
    now, default = settings_of(read_profile(profile)), settings_of(SAMPLE)
    differs = {name for name in now if now[name] != default[name]}

    def names(part: dict, kind: type, prefix: str = "") -> Iterator[str]:
        for name, value in part.items():
            inner = sections(kind).get(name)
            yield from names(value, inner, f"{prefix}{name}.") if inner else [prefix + name]

    assert sorted(names(changes, Params)) == sorted(differs)


def test_the_sample_profile_is_complete():
    text = (ROOT / "params/sample.yaml").read_text()
    assert params_of(yaml_12(text)) == SAMPLE


@pytest.mark.parametrize(
    "text, message",
    [
        ("finetune: {free_precision: bf16, loss: hinge}", "loss is 'hinge'; with free_precision"),
        ("finetune: {train_labels: false, candidates: shortlist}", "with train_labels: false it"),
        ("finetune: {free_precision: bf16, free_update: rows}", "it must be dense or auto"),
        ("finetune: {free_precision: bf16}", "transfer.classifier is 'directed'; with finetune"),
        (
            "finetune: {train_labels: false}\ntransfer: {a_c: attention}",
            "transfer.a_c is 'attention'; with finetune.train_labels: false it must be none",
        ),
    ],
)
def test_settings_for_millions_of_labels_need_the_softmax_over_all(tmp_path, text, message):
    (tmp_path / "sample.yaml").write_text((ROOT / "params/sample.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ParamsError, match=message):
        read_profile("mine", tmp_path)


def test_params_yaml_is_what_use_sample_writes():
    assert (ROOT / "params.yaml").read_text() == text_of_profile("sample")


def test_the_paper_profile_has_the_papers_numbers():
    p = read_profile("paper")
    e, m, f = p.encoder, p.pretrain, p.finetune
    assert (e.dim, e.projection, e.image.trainable_blocks) == (192, "maxpool", 1)
    assert (m.loss, m.gamma, m.positives, m.negatives) == ("triplet", 0.2, 2, 3)
    assert (m.batch_size, m.epochs, m.lr, m.warmup_iterations) == (1024, 200, 2e-4, 1000)
    assert (f.loss, f.gamma, f.positives, f.negatives) == ("hinge", 0.5, 2, 12)
    assert (f.batch_size, f.epochs, f.lr, f.train_encoders) == (200, 20, 5e-5, True)
    assert (p.retrieve.vectors, p.retrieve.shortlist) == ("bag", 100)
    assert (p.evaluate.beta, p.transfer.alpha) == (0.7, 0.5)


def test_the_released_data_set_has_the_papers_settings():
    paper = dataclasses.asdict(read_profile("paper"))
    released = dataclasses.asdict(read_profile("mm-amazontitles-300k"))
    assert [name for name in paper if paper[name] != released[name]] == ["download"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("finetune: {gama: 1}", "mine.yaml: finetune.gama is not a parameter; did you mean"),
        ("finetune: {gamma: 2.0}", "mine.yaml: finetune.gamma is 2.0; a cosine margin"),
        ("finetune: 1", "mine.yaml: finetune is 1; it must be a section"),
        ("gamma", "mine.yaml is 'gamma'; it must be sections"),
    ],
)
def test_a_wrong_profile_is_named_with_its_setting(tmp_path, text, message):
    (tmp_path / "sample.yaml").write_text((ROOT / "params/sample.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ParamsError, match=message):
        read_profile("mine", tmp_path)


def test_a_profile_without_changes_is_the_default(tmp_path):
    (tmp_path / "sample.yaml").write_text((ROOT / "params/sample.yaml").read_text())
    (tmp_path / "mine.yaml").write_text("# nothing\n")
    assert read_profile("mine", tmp_path) == SAMPLE


# The text of params.yaml


@pytest.mark.parametrize("profile", PROFILES)
def test_yaml_versions_and_json_read_the_same_settings(profile, tmp_path):
    text, settings = text_of_profile(profile), read_profile(profile)
    assert yaml_12(text) == pyyaml.safe_load(text) == dataclasses.asdict(settings)
    (tmp_path / "params.yaml").write_text(json.dumps(yaml_12(text)))
    assert load_params(tmp_path / "params.yaml") == settings


@pytest.mark.parametrize("profile", PROFILES)
def test_comments_are_aligned_within_100_columns(profile):
    lines = text_of_profile(profile).splitlines()
    assert max(map(len, lines)) <= profiles.WIDTH
    beside = [line for line in lines if re.match(r" *[a-z_]+:.*#", line)]
    assert len(beside) > 80
    assert {line.index("#") for line in beside} == {profiles.COMMENTS}


@pytest.mark.parametrize("profile", PROFILES)
def test_dvc_changes_one_value_and_nothing_else(profile):
    rt, written = YAML(), io.StringIO()  # as DVC does for `-S`
    text = text_of_profile(profile)
    content = rt.load(text)
    content["finetune"]["gamma"] = 0.25
    rt.dump(content, written)
    expected = text.replace("  gamma: 0.5 ", "  gamma: 0.25", 1).replace(": null ", ":      ")
    assert written.getvalue() == expected


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 10**18, 10**18 - 1)
    | TEXTS
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(TEXTS, parts, max_size=3),
    max_leaves=8,
)
LIKELY = st.sampled_from(["null", "No", "1e3", "0x1", "1:30", "a: b", "a #b", "~", "", "- a", "<<"])


@given(
    st.dictionaries(st.text(string.ascii_letters, min_size=1), JSON, max_size=4),
    TEXTS | LIKELY,
    st.floats(1e-300, 1e300),
)
def test_any_values_are_read_back_by_both_yaml_versions(options, name, rate):
    image = dataclasses.replace(SAMPLE.encoder.image, options=options, name=name)
    encoder = dataclasses.replace(SAMPLE.encoder, image=image)
    settings = dataclasses.replace(
        SAMPLE, encoder=encoder, finetune=dataclasses.replace(SAMPLE.finetune, lr=rate)
    )
    text = text_of(settings, "head")
    assert yaml_12(text) == pyyaml.safe_load(text) == dataclasses.asdict(settings)
    assert params_of(yaml_12(text)) == settings


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"a"])
def test_what_yaml_cannot_carry_is_refused(value):
    with pytest.raises(ParamsError, match="cannot be a setting"):
        profiles.scalar([value])


# Reading


def changed(tmp_path: Path, change) -> Path:
    content = dataclasses.asdict(SAMPLE)
    change(content)
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "section, key, value, message",
    [
        ("finetune", "gama", 0.5, "finetune.gama is not a parameter; did you mean finetune.gamma"),
        ("finetune", "gamma", 1.5, r"finetune.gamma is 1.5; a cosine margin lies in \[-1, 1\]"),
        ("finetune", "gamma", "high", "finetune.gamma is 'high'; it must be a number"),
        ("finetune", "lr", float("inf"), "finetune.lr is inf; it must be a finite number"),
        ("finetune", "epochs", 2.5, "finetune.epochs is 2.5; it must be a whole number"),
        ("finetune", "epochs", True, "finetune.epochs is True; it must be a whole number"),
        ("pretrain", "loss", "triplett", "pretrain.loss is 'triplett'.*did you mean triplet"),
        ("download", "source", "catalog", "download.location is None; source catalog needs"),
        ("encoder", "modalities", [], "name at least one"),
        ("encoder", "modalities", ["sound"], "'sound'; it must be one of text, image, lexical"),
        ("attention", "heads", 5, "attention.heads is 5; it must divide encoder.dim"),
        ("transfer", "alpha", 0.0, "transfer.alpha is 0.0"),
        ("evaluate", "betas", [2.0], "evaluate.betas is 2.0; each must lie in"),
        ("retrieve", "hnsw", 16, "retrieve.hnsw is 16; it must be a section"),
        ("finetune", "normalise_classifier", True, "is not a parameter"),  # it is transfer's
    ],
)
def test_a_wrong_setting_is_named_with_the_remedy(tmp_path, section, key, value, message):
    def change(content):
        content[section][key] = value

    with pytest.raises(ParamsError, match=message):
        load_params(changed(tmp_path, change))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_missing_setting_is_named(tmp_path, section):
    for name in meanings(SECTIONS[section]):

        def remove(content, name=name):
            for part in filter(None, section.split(".")):
                content = content[part]
            del content[name]

        full = f"{section}.{name}".lstrip(".")
        with pytest.raises(ParamsError, match=f"^{full} is missing; .*params/sample.yaml"):
            load_params(changed(tmp_path, remove))


def test_exponents_as_dvc_writes_them_are_numbers(tmp_path):
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(text.replace("  lr: 0.01 ", "  lr: 1e-05 "))
    assert load_params(path).finetune.lr == 1e-5


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a: [", "params.yaml line 1 is not YAML"),
        (b"a: 1\na: 2", "params.yaml line 2 is not YAML: found duplicate key"),
        (b"", "params.yaml has no settings; `mufin use sample"),
        (b"- 1", "must be sections"),
        (b"\xff", "params.yaml cannot be read .* `mufin use sample .*` writes a new one"),
    ],
)
def test_a_file_without_settings_is_refused(tmp_path, content, message):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=message):
        load_params(tmp_path / "params.yaml")


def test_a_missing_file_names_the_command_that_writes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match="params.yaml is missing; `mufin use sample` writes one"):
        load_params()
    command = f"`mufin use sample --params {tmp_path}/my.yaml --force` writes one"
    with pytest.raises(ParamsError, match=f"my.yaml is missing; {command}"):
        load_params(tmp_path / "my.yaml")


def test_a_byte_order_mark_is_read_over(tmp_path):
    text = (ROOT / "params.yaml").read_bytes()
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbf" + text)
    assert load_params(tmp_path / "params.yaml") == SAMPLE


def test_settings_cannot_be_changed_after_reading():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_params(ROOT / "params.yaml").finetune.gamma = 0.1


@pytest.mark.parametrize("threads", ["all", 1, 8])
def test_a_graph_is_built_by_all_cores_or_a_number_of_threads(threads):
    assert dataclasses.replace(SAMPLE.index.hnsw, threads=threads).threads == threads
    dataclasses.replace(SAMPLE.index, hnsw=dataclasses.replace(SAMPLE.index.hnsw, threads=threads))


def test_a_graph_needs_a_thread():
    with pytest.raises(ParamsError, match="index.hnsw.threads is 0; it must be `all` or at least"):
        dataclasses.replace(SAMPLE.index, hnsw=dataclasses.replace(SAMPLE.index.hnsw, threads=0))
