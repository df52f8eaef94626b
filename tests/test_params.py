from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mufin.params import ParamsError, load_params

ROOT = Path(__file__).parents[1]
PROFILES = [ROOT / "params.yaml", *sorted((ROOT / "params").glob("*.yaml"))]


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_every_profile_is_valid_and_complete(path):
    load_params(path)


def test_params_yaml_is_the_sample_profile():
    assert load_params(ROOT / "params.yaml") == load_params(ROOT / "params/sample.yaml")


def test_the_paper_profile_has_the_papers_numbers():
    p = load_params(ROOT / "params/paper.yaml")
    assert (p.encoder.dim, p.encoder.projection, p.encoder.image.trainable_blocks) == (
        192,
        "maxpool",
        1,
    )
    m = p.pretrain
    assert (
        m.loss,
        m.gamma,
        m.positives,
        m.negatives,
        m.batch_size,
        m.epochs,
        m.lr,
        m.warmup_iterations,
    ) == ("triplet", 0.2, 2, 3, 1024, 200, 2e-4, 1000)
    f = p.finetune
    assert (
        f.loss,
        f.gamma,
        f.positives,
        f.negatives,
        f.batch_size,
        f.epochs,
        f.lr,
        f.train_encoders,
    ) == ("hinge", 0.5, 2, 12, 200, 20, 5e-5, True)
    assert (p.retrieve.vectors, p.retrieve.shortlist, p.evaluate.beta, p.transfer.alpha) == (
        "bag",
        100,
        0.7,
        0.5,
    )


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_params_in_json_are_the_same_settings(path, tmp_path):
    content = YAML(typ="safe").load(path.read_text())
    (tmp_path / "params.yaml").write_text(json.dumps(content))
    assert load_params(tmp_path / "params.yaml") == load_params(path)


def test_a_misnamed_setting_in_json_is_named_as_in_yaml(tmp_path):
    content = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    content["finetune"]["free_updates"] = content["finetune"].pop("free_update")
    (tmp_path / "params.yaml").write_text(json.dumps(content))
    with pytest.raises(
        ParamsError,
        match="finetune.free_updates is not a parameter; did you mean finetune.free_update?",
    ):
        load_params(tmp_path / "params.yaml")


def changed(tmp_path: Path, change) -> Path:
    yaml = YAML()
    content = yaml.load((ROOT / "params.yaml").read_text())
    change(content)
    path = tmp_path / "params.yaml"
    with open(path, "w") as file:
        yaml.dump(content, file)
    return path


@pytest.mark.parametrize(
    "section, key, value, message",
    [
        ("finetune", "gama", 0.5, "finetune.gama is not a parameter; did you mean finetune.gamma"),
        ("finetune", "gamma", 1.5, r"finetune.gamma is 1.5; a cosine margin lies in \[-1, 1\]"),
        ("finetune", "gamma", "high", "finetune.gamma is 'high'; it must be a number"),
        ("finetune", "epochs", 2.5, "finetune.epochs is 2.5; it must be a whole number"),
        ("finetune", "epochs", True, "finetune.epochs is True; it must be a whole number"),
        (
            "pretrain",
            "loss",
            "triplett",
            "pretrain.loss is 'triplett'; it must be one of .*did you mean triplet",
        ),
        ("download", "source", "catalog", "download.location is None; source catalog needs"),
        ("encoder", "modalities", [], "name at least one"),
        (
            "encoder",
            "modalities",
            ["text", "sound"],
            "encoder.modalities is 'sound'; it must be one of text, image, lexical",
        ),
        ("attention", "heads", 5, "attention.heads is 5; it must divide encoder.dim"),
        ("transfer", "alpha", 0.0, "transfer.alpha is 0.0"),
        ("evaluate", "betas", [2.0], "evaluate.betas is 2.0; each must lie in"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_with_the_remedy(tmp_path, section, key, value, message):
    def change(content):
        content[section][key] = value

    with pytest.raises(ParamsError, match=message):
        load_params(changed(tmp_path, change))


def test_a_missing_setting_is_named(tmp_path):
    with pytest.raises(ParamsError, match="finetune.gamma is missing"):
        load_params(changed(tmp_path, lambda c: c["finetune"].pop("gamma")))


def test_exponents_as_dvc_writes_them_are_numbers(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("  lr: 0.0005 ", "  lr: 1e-05 "))
    assert load_params(path).finetune.lr == 1e-5


@pytest.mark.parametrize(
    "text, message",
    [("a: [", "is not YAML"), ("", "must be a section"), ("- 1", "must be a section")],
)
def test_a_file_that_is_no_settings_is_said_to_be_so(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=message):
        load_params(tmp_path / "params.yaml")


def test_settings_cannot_be_changed_after_reading():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_params(ROOT / "params.yaml").finetune.gamma = 0.1
