"""Table 3: its rows, its figures over seeds, and the settings of each seed."""

from __future__ import annotations

import pytest

from compare import fitb
from compare.study import FOLDER, read_study
from mufin.artifacts.files import write_json
from mufin.errors import MufinError
from mufin.params import load_params
from tests.support.projects import ROOT, changed

BEST = {"FITB": 80.0, "FITB of titles": 60.0, "FITB of pictures": 61.0}
BEST |= {name.replace("FITB", "AUC"): value + 10 for name, value in BEST.items()}


def results(home, seed: int, accuracy: float) -> None:
    """What the rows `mufin` and CSA-Net leave at a seed."""
    place = home / fitb.PLACE / str(seed)
    write_json({"sample": {"best_attainable": BEST}}, place / "data/raw/source.json")
    folder = place / FOLDER / f"mufin@{seed}"
    figures = {"accuracy": accuracy, "AUC": 90.0}
    write_json({"row": "mufin"}, folder / "facts.json")
    write_json({"valid": {}, "test": figures}, folder / "fitb.json")
    write_json({"accuracy": 50.0, "AUC": 70.0}, fitb.rival_file(place, "CSA-Net", seed))


def test_figures_are_means_over_seeds_beside_those_of_the_paper(tmp_path):
    for seed, accuracy in ((0, 70.0), (2, 74.0)):
        results(tmp_path, seed, accuracy)
    report = fitb.gathered(tmp_path, [0, 2], ["mufin", "CSA-Net"])
    assert report["rows"][0]["metrics"] == {"accuracy": [72.0, 2.8284], "AUC": [90.0, 0.0]}
    lines = fitb.markdown(report)
    assert "| MUFIN (alpha = 1) | 72.00 ± 2.83 | 90.00 ± 0.00 | 64.17 |" in lines
    assert "| CSA-Net | 50.00 ± 0.00 | 70.00 ± 0.00 | 59.26 |" in lines
    assert "| *best attainable* | 80.00 ± 0.00 | 90.00 ± 0.00 | |" in lines


def test_a_row_that_failed_says_why(tmp_path):
    results(tmp_path, 0, 70.0)
    path = fitb.rival_file(tmp_path / fitb.PLACE / "0", "CSA-Net", 0)
    write_json({"failed": "no memory"}, path)
    lines = fitb.markdown(fitb.gathered(tmp_path, [0], ["mufin", "CSA-Net"]))
    assert "| CSA-Net | no memory |  | 59.26 |" in lines
    assert "| MUFIN (alpha = 1) | 70.00 | 90.00 | 64.17 |" in lines


def test_each_seed_has_generated_outfits_of_its_own(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    params = load_params(fitb.prepared(tmp_path, 2) / "params.yaml")
    assert params.seed == params.download.sample.seed == 2
    assert params.download.source == "sample-outfits"
    study = read_study(tmp_path / fitb.PLACE / "2/compare/study.yaml")
    assert study.seeds == [2] and set(study.variants) == set(fitb.MUFIN)


def test_outfits_of_the_users_settings_are_used(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    own = {
        "download.source": "polyvore",
        "download.location": "release",
        "download.outfits.split": "disjoint",
    }
    (tmp_path / "params.yaml").write_text(changed(ROOT / "params.yaml", own))
    params = load_params(fitb.prepared(tmp_path, 1) / "params.yaml")
    assert (params.download.location, params.seed, params.download.sample.seed) == ("release", 1, 0)
    (tmp_path / "params.yaml").write_text(changed(ROOT / "params.yaml", own | {"members": 2}))
    with pytest.raises(MufinError, match="compare/fitb/1 has rows of other settings; delete it"):
        fitb.prepared(tmp_path, 1)


def test_rows_are_those_of_table_3():
    assert len(fitb._chosen(None)) == len(fitb.MUFIN) + 6
    assert fitb._chosen(["CSA-Net", "mufin"]) == ["mufin", "CSA-Net"]
    with pytest.raises(MufinError, match="--rows clip is no row; there are mufin, resnet18"):
        fitb._chosen(["clip"])
