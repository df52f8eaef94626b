"""What the study reads from dvc.yaml, and what its own dvc.yaml must say alike."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from compare.stages import of_base, of_variant, read_stages
from compare.study import Study, baselines
from compare.variant import planned
from mufin.errors import MufinError
from tests.compare.test_study import settings_in, variants_of
from tests.support.projects import ROOT

PIPELINE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
COMPARE = YAML(typ="safe").load((ROOT / "compare/dvc.yaml").read_text())["stages"]
STAGES = read_stages(ROOT / "dvc.yaml")
SHARED = ["download", "curate"]
BASE = ["precompute", "pretrain", "retrieve"]
ROW = ["transfer", "finetune", "index", "folds", "evaluate"]


def names(stages) -> list[str]:
    return [stage.name for stage in stages]


def run(settings: dict) -> list[str]:
    return names(of_variant(STAGES, settings))


def test_stages_have_the_settings_and_outs_of_dvc_yaml():
    assert names(STAGES) == [*SHARED, *BASE, *ROW]
    by_name = {stage.name: stage for stage in STAGES}
    assert by_name["transfer"].settings == ["seed", "transfer"]
    assert by_name["retrieve"].data == ["data/embeddings", "data/shortlists"]
    assert "metrics/runtime/retrieve.json" in by_name["retrieve"].outs
    assert by_name["evaluate"].data == ["data/predictions", "models/mix.json"]


def test_a_variant_runs_from_the_first_reader_of_its_settings():
    for name in settings_in((ROOT / "params.yaml").read_text()):
        if name.startswith(("download", "curate")) or name == "seed":
            continue
        readers = [
            stage
            for stage in [*BASE, *ROW]
            for own in PIPELINE[stage]["params"]
            if isinstance(own, str) and (name == own or name.startswith(f"{own}."))
        ]
        first = min(readers, key=[*BASE, *ROW].index)
        expected = [*BASE, *ROW][[*BASE, *ROW].index(first) :]
        assert run({name: 1}) == (expected if first in BASE else ROW), name


def test_the_earliest_of_several_settings_counts():
    assert run({}) == run({"evaluate.beta": 0.5}) == ROW
    assert run({"finetune.gamma": 0.1, "attention.heads": 2}) == ["pretrain", "retrieve", *ROW]
    assert run({"encoder.dim": 8}) == ["pretrain", "retrieve", *ROW]
    assert run({"encoder.image.name": "x", "encoder.dim": 8}) == [*BASE, *ROW]
    assert run({"encoder": {}}) == [*BASE, *ROW]


@pytest.mark.parametrize("name", ["curate.split", "download.max_images", "gama", "seed"])
def test_settings_that_variants_share_are_refused(name):
    with pytest.raises(MufinError, match=f"{name} cannot differ between variants"):
        run({name: 1})


def test_precompute_runs_again_only_for_other_random_weights(tmp_path):
    assert names(of_base(STAGES, True)) == BASE and names(of_base(STAGES, False)) == BASE[1:]
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    text = (ROOT / "params.yaml").read_text()
    assert settings_in(text)["seed"] == 0 and text.count("weights: random") == 2
    for params, seed, expected in (
        (text, 0, BASE[1:]),
        (text, 1, BASE),
        (text.replace("weights: random", "weights: pretrained"), 1, BASE[1:]),
    ):
        (tmp_path / "params.yaml").write_text(params)
        assert names(planned(tmp_path, "base", seed, {})) == expected


def test_the_base_depends_on_the_settings_of_its_stages():
    declared = {own.partition(".")[0] for stage in BASE for own in PIPELINE[stage]["params"][:-1]}
    (settings,) = (p["../params.yaml"] for p in COMPARE["base"]["params"] if "../params.yaml" in p)
    assert set(settings) == declared


def test_rows_depend_on_the_stages_that_they_run():
    def scripts(stage):
        deps = COMPARE[stage]["deps"]
        return {d.removeprefix("../pipeline/") for d in deps if "pipeline/" in d} - {"__init__.py"}

    assert scripts("base") == {f"{name}.py" for name in BASE}
    assert scripts("variant") == {f"{name}.py" for name in [*BASE, *ROW]}


@pytest.mark.parametrize("stage", ["baseline", "reference", "ceiling"])
def test_a_baseline_depends_on_its_own_file_and_no_other(stage):
    own = "../mufin/baselines/${item.name}.py"
    deps = [d for d in COMPARE[stage]["deps"] if d.startswith("../mufin/baselines/")]
    assert own in deps
    assert not set(deps) & {f"../mufin/baselines/{name}.py" for name in baselines()}
    assert {"../data/curated", "../data/precomputed"} <= set(COMPARE[stage]["deps"])


@pytest.mark.parametrize("profile", ["sample", "small-catalog", "paper"])
def test_every_variant_of_a_profile_has_a_first_stage(profile):
    study: Study = variants_of(profile)
    first = {name: run(settings)[0] for name, settings in study.variants.items()}
    same = "no_a_c" if profile == "paper" else "with_a_c"  # Modules I and II as in `mufin`
    assert first[same] == first["mufin"] == "transfer"
    assert first["no_a_s"] == "pretrain" and first["text_only"] == "precompute"
