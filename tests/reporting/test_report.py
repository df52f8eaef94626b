"""The page: whole, safe, without network or script; its figures are those of the study."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from compare import report
from compare.rows import place
from compare.study import FOLDER
from mufin.artifacts.curated import read_curated
from mufin.artifacts.files import read_json
from mufin.artifacts.tables import read_ranking, write_ranking
from mufin.errors import MufinError
from mufin.evaluation import breakdowns
from mufin.reporting import claims
from tests.reporting.study import HOSTILE, METRICS, ROWS, Page, rename_products
from tests.support.artifacts import sealed
from tests.support.stages import inside


def test_the_page_is_balanced_and_starts_as_html(page):
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert Page(page).open == []


def test_the_page_needs_no_network_and_has_no_script(page):
    found = Page(page)
    own = ("data:image/jpeg;base64,", "#")
    assert found.references and all(r.startswith(own) for r in found.references)
    assert not found.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert not re.search(r"url\(|@import", page)


def test_hostile_titles_are_text(page):
    assert "<script" not in page and "<img src=http" not in page and "&lt;script&gt;" in page
    assert not {a for a in Page(page).attributes if a.startswith("on")}


def test_the_page_is_light(page):
    assert len(page.encode()) < 1_500_000


def test_the_head_names_catalog_date_commit_and_profile(page):
    head = Page(page).head
    assert head["catalog"] == "the built-in sample"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", head["date"])
    assert head["commit"].startswith("none")  # the folder is no git repository
    assert head["profile"].startswith("sample, ") and "settings changed" in head["profile"]


def test_every_figure_of_the_table_is_that_of_compare_json(home, page):
    rows = {r[0]: r[1:] for r in Page(page).rows if len(r) == 1 + len(METRICS)}
    for row in read_json(home / "metrics/compare.json")["rows"]:
        if row["metrics"]:
            wanted = []
            for metric in METRICS:
                mean, spread = row["metrics"][metric]
                error = row["standard_errors"].get(metric)
                cell = f"{mean:.2f}" + (f" ± {spread:.2f}" if len(row["seeds"]) > 1 else "")
                wanted.append(cell if error is None else f"{cell} ({error:.2f})")
            assert [" ".join(cell.split()) for cell in rows[row["title"]]] == wanted


def test_bold_figures_of_the_table_are_those_of_compare_json(home, page):
    study = read_json(home / "metrics/compare.json")
    table = page[page.index('id="table"') : page.index('id="categories"')]
    bold = {
        f"{row['metrics'][metric][0]:.2f}"
        for row in study["rows"]
        for metric in METRICS
        if study["bold"][metric] == row["row"]
    }
    assert set(re.findall(r'<td class="best">([\d.]+)', table)) == bold
    assert len(bold) == len(METRICS) - 1  # nobody leads in P@5


def test_a_failed_row_says_why(page):
    assert "failed: seed 0: &lt;napkinxc&gt; crashed; try another" in page


def test_recall_on_the_page_has_its_standard_error(home, page):
    data = read_curated(home / "data/curated")
    test = data.splits["test"]
    for name, _, seeds in ROWS:
        found = [read_ranking(place(home / FOLDER, name, seed)) for seed in seeds]
        truth = test.labels, test.excluded
        at_10 = np.mean([breakdowns.per_datapoint(f, *truth)[:, 2] for f in found], axis=0)
        error = at_10.std(ddof=1) / np.sqrt(len(test))
        row = next(r for r in Page(page).rows if len(r) == 8 and r[0] == name + HOSTILE)
        assert row[-1].split() == [f"{at_10.mean():.1f}", f"({error:.1f})"]


def test_training_curves_are_drawn(page):
    section = page[page.index('id="curves"') : page.index('id="claims"')]
    assert section.count("<path") == 3
    assert "Module I (pretrain): squared_mean" in section
    assert "Module I (pretrain): loss" in section and "Module IV (finetune): loss" in section


def test_plots_have_every_row_bin_and_label(home):
    lines = (home / "compare/plots/popularity.csv").read_text().splitlines()
    assert lines[0] == "row,bin,R@10" and len(lines) == 1 + len(ROWS) * 5
    header = (home / "compare/plots/categories.csv").read_text().splitlines()[0]
    assert header == "row,category,datapoints,P@5"
    lines = (home / "compare/plots/classifiers.csv").read_text().splitlines()
    assert lines[0] == "x,y,category"
    assert len(lines) == 1 + len(read_curated(home / "data/curated").labels)
    assert [line.endswith(",others") for line in lines] == sorted(
        line.endswith(",others") for line in lines
    )


@pytest.fixture
def copied(home, tmp_path) -> Path:
    """A copy of the run, to change."""
    folder = tmp_path / "copied"
    shutil.copytree(home, folder, ignore=shutil.ignore_patterns("scratch"))
    return folder


def report_of(folder: Path) -> str:
    text = (folder / "params.yaml").read_text()
    with inside(folder):
        (folder / "params.yaml").write_text(text)
        report.main(folder)
    return (folder / "metrics/report.html").read_text()


def test_the_page_says_that_categories_titles_and_pictures_are_missing(copied):
    rename_products(copied, lambda title: "", lambda path: [])
    shutil.rmtree(copied / "data/raw/images")
    text = report_of(copied)
    assert "no categories that tell them apart" in text and "no picture" in text
    assert Page(text).open == []
    header = "row,category,datapoints,P@5"
    assert (copied / "compare/plots/categories.csv").read_text().split() == [header]


def test_a_missing_study_is_one_sentence(copied):
    (copied / "metrics/compare.json").unlink()
    with pytest.raises(MufinError, match="run `make compare` first"):
        report_of(copied)


def test_predictions_of_another_split_are_one_sentence(copied):
    three = np.zeros((3, 1), np.int64), np.zeros((3, 1), np.float32)
    path = place(copied / FOLDER, "mufin", 0)
    write_ranking(*three, path)
    sealed(path.parent)
    with pytest.raises(MufinError, match="3 predictions for"):
        report_of(copied)


def test_the_report_says_in_json_what_it_found(home):
    found = json.loads((home / "metrics/report.json").read_text())
    assert found["attention"]["datapoints"] > 0 and found["classifiers"]["share"] >= 0
    verdict = found["claims"][f"MUFIN is better than bonsai{HOSTILE}."]
    assert verdict in (claims.SHOWS, claims.WITHIN, claims.NOT)


def test_the_report_in_json_is_the_same_in_every_run(copied):
    before = (copied / "metrics/report.json").read_bytes()
    report_of(copied)
    assert (copied / "metrics/report.json").read_bytes() == before
