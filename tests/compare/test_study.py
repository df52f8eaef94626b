"""Files of variants: each line has the settings that its name says; broken files are refused."""

from __future__ import annotations

import json
from collections.abc import Collection

import pytest
from ruamel.yaml import YAML

from compare.rows import BASELINES, CEILINGS, MUFIN, OWN, REFERENCE, order, title
from compare.study import OF_MUFIN, Study, baselines, read_study
from compare.variant import changed, settings_of
from mufin.errors import MufinError
from mufin.params import load_params
from mufin.profiles import text_of_profile
from tests.support.projects import ROOT

PROFILES = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))
WANTED = {  # the settings of the paper's ablations, by the names that they have here
    "no_hard_positives": {"pretrain.hard_positives"},
    "no_hard_negatives": {"pretrain.hard_positives", "pretrain.hard_negatives"},
    "concat": {"transfer.a_c"},
    "no_a_s": {"attention.a_s"},
    "no_a_c": {"transfer.a_c"},
    "alpha_1": {"transfer.alpha"},
    "text_only": {"encoder.modalities"},
    "image_only": {"encoder.modalities"},
    "datapoint_batches": {"pretrain.batching"},
    "cluster_batches": {"pretrain.batching"},
    # The parts of the sample's recipe
    "no_self_supervision": {"encoder.image.self_supervised_epochs"},
    "no_direction": {"transfer.classifier"},
    "no_norm": {"encoder.descriptor_norm"},
    "no_decay": {"pretrain.lexical_weight_decay", "finetune.lexical_weight_decay"},
    "sums": {"attention.pool"},
    "bigrams": {"encoder.lexical.ngrams"},
    "no_word_dropout": {"encoder.lexical_dropout"},
    "with_a_s": {"attention.a_s"},
    "with_a_c": {"transfer.a_c"},
    "attention": {"encoder.descriptor_norm", "attention.a_s", "transfer.a_c"},
    "prime": {"transfer.classifier"},
    "e_t": {"encoder.modalities"},
    "early": {"encoder.modalities", "encoder.fusion"},
    "both": {"encoder.modalities", "encoder.fusion"},
}
ELSEWHERE = {"bigrams", "no_word_dropout", "attention"}  # rows of small-catalog, not of the sample
SAMPLING = {"no_hard_positives", "no_hard_negatives"}
TABLE_4 = {"concat", "no_a_s", "no_a_c", "alpha_1", "datapoint_batches", "cluster_batches"}
READ_TITLES = {"index.title_ridge", "evaluate.ridge_weights"}  # not for pictures alone
FORM = {"seeds": [0], "variants": {"mufin": {}}, "baselines": {}, "reference": {}}


def flat(content: dict, prefix: str = "") -> dict[str, object]:
    out: dict[str, object] = {}
    for name, value in content.items():
        nested = isinstance(value, dict) and name not in ("options", "hnsw", "propensity")
        out |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return out


def settings_in(text: str) -> dict[str, object]:
    return flat(YAML(typ="safe", pure=True).load(text))


def variants_of(profile: str) -> Study:
    return read_study(ROOT / f"params/variants/{profile}.yaml")


@pytest.fixture(params=PROFILES)
def texts(request, tmp_path) -> dict[str, str]:
    """The params.yaml of each variant of a profile, each of them valid."""
    (tmp_path / "profile.yaml").write_text(text_of_profile(request.param))
    variants = variants_of(request.param).variants
    out = {name: changed(tmp_path / "profile.yaml", changes) for name, changes in variants.items()}
    for text in out.values():
        (tmp_path / "params.yaml").write_text(text)
        load_params(tmp_path / "params.yaml")
    assert settings_in(out["mufin"]) == settings_in((tmp_path / "profile.yaml").read_text())
    return out


def test_each_variant_differs_in_the_settings_named(texts):
    for name, text in texts.items():
        before, after = settings_in(texts[base_of(name, texts)]), settings_in(text)
        differs = {n for n in before if before[n] != after[n]}
        of_encoders = {n for n in differs if n.startswith(("encoder.image.", "encoder.text."))}
        assert set(before) == set(after)
        if name == "image_only":
            differs -= READ_TITLES
        if name in WANTED:
            assert differs == WANTED[name], name
        elif name == "visualbert":
            assert "encoder.text.kind" in differs and after["attention.a_s"] == "none"
            assert differs - {"attention.a_s", "encoder.modalities"} == of_encoders
        elif name not in ("mufin", "soft_triplet", "published"):
            assert differs and differs - {"encoder.modalities"} == of_encoders, name


def base_of(name: str, there: Collection[str]) -> str:
    """The row that `name` differs from in the settings that it is about."""
    if name in SAMPLING and "soft_triplet" in there:
        return "soft_triplet"
    paper = next((row for row in ("published", "attention") if row in there), "mufin")
    return paper if name in TABLE_4 else "mufin"


def test_published_has_the_modules_and_losses_of_the_paper(tmp_path):
    texts = {}
    for profile in ("sample", "paper"):
        (tmp_path / "profile.yaml").write_text(text_of_profile(profile))
        changes = variants_of(profile).variants["published"] if profile == "sample" else {}
        texts[profile] = settings_in(changed(tmp_path / "profile.yaml", changes))
    ours, paper = texts["sample"], texts["paper"]
    of_method = ("attention.", "transfer.", "finetune.loss", "finetune.candidates", "evaluate.")
    # Module I by a softmax: the hinge of the paper learns nothing from random weights
    same = {n for n in ours if n.startswith(of_method)} - {"evaluate.frequency_weights"}
    assert {n: ours[n] for n in same} == {n: paper[n] for n in same}


def test_the_sample_has_every_row_of_the_paper():
    study = read_study(ROOT / "compare/variants.yaml")
    here = [name for name in MUFIN if name not in ELSEWHERE]
    assert set(here) == {*study.variants, *OF_MUFIN}
    assert order(study) == [*here, *study.baselines, *study.reference, *study.ceilings]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_baseline_is_a_row_of_every_profile(profile):
    study = variants_of(profile)
    ceilings = read_study(ROOT / "compare/variants.yaml").ceilings  # of the sample alone
    assert ceilings and study.ceilings == (ceilings if profile == "sample" else {})
    if profile == "outfits":  # its rivals answer questions: compare/fitb.py
        assert not study.baselines and not study.reference
        return
    assert sorted([*study.baselines, *study.reference, *ceilings]) == baselines()


def test_the_sample_is_what_the_checkout_compares():
    path = ROOT / "compare/variants.yaml"
    assert path.read_text() == (ROOT / "params/variants/sample.yaml").read_text()


def test_a_users_rows_need_no_edit_elsewhere():
    study = Study([0, 1], {"mufin": {}, "narrow": {}}, {"mach": "My MACH"}, {"popular": "Sellers"})
    assert order(study)[-3:] == ["narrow", "mach", "popular"]
    assert title(study, "narrow") == (OWN, "narrow")
    assert title(study, "mach") == (BASELINES, "My MACH")
    assert title(study, "popular") == (REFERENCE, "Sellers")
    assert study.seeds_of("mach") == [0, 1] and study.seeds_of("popular") == [0]
    assert study.ceilings == {}


def test_ceilings_come_last_and_run_at_one_seed():
    study = Study([0, 1], {"mufin": {}}, {}, {"popular": "Sellers"}, {"ceiling": "most"})
    assert order(study)[-2:] == ["popular", "ceiling"]
    assert title(study, "ceiling") == (CEILINGS, "most")
    assert study.seeds_of("ceiling") == [0]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"seeds": []}, "seeds is"),
        ({"seeds": [-1]}, "seeds is"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"seeds": 3}, "seeds is"),
        ({"variants": {}}, "include `mufin`"),
        ({"variants": {"mufin": 3}}, "map each name to its settings"),
        ({"baselines": ["bonsai"]}, "names with their titles"),
        ({"baselines": {"bonsay": "Bonsai"}}, "mufin/baselines/bonsay.py is missing; there are"),
        ({"reference": {"popular": 1}}, "reference is"),
        ({"reference": {"shared": "Shared"}}, "shared.py is missing"),
        ({"ceilings": {"ceilling": "a"}}, "ceilling.py is missing"),
        ({"ceilings": None}, "ceilings is None"),
        ({"baselines": {"popular": "a"}, "reference": {"popular": "b"}}, "popular cannot be"),
        ({"variants": {"mufin": {}, "base": {}}}, "base cannot be the name of a row"),
        ({"variants": {"mufin": {}, "mufin_fixed": {}}}, "mufin_fixed cannot be"),
        ({"variants": {"mufin": {}, "a b": {}}}, "a b cannot be the name of a row"),
        ({"more": 1}, "nothing else"),
    ],
    ids=str,
)
def test_a_broken_file_of_variants_is_one_sentence(tmp_path, change, said):
    path = tmp_path / "variants.yaml"
    path.write_text(json.dumps(FORM))
    read_study(path)
    path.write_text(json.dumps(FORM | change))
    with pytest.raises(MufinError, match=said) as error:
        read_study(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_what_writes_it(tmp_path):
    with pytest.raises(MufinError, match=r"study.yaml is missing; `make compare` writes"):
        read_study(tmp_path / "study.yaml")


def test_an_unknown_variant_or_setting_is_refused_by_name():
    study = Study(**FORM)
    assert settings_of(study, "base") == settings_of(study, "mufin") == {}
    with pytest.raises(MufinError, match="no_a_c is not a variant; there are mufin"):
        settings_of(study, "no_a_c")
    with pytest.raises(MufinError, match="finetune.gama is not a setting"):
        changed(ROOT / "params.yaml", {"finetune.gama": 1})
