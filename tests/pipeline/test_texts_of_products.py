"""Columns of texts beside the title through download and curate, in the folder of a project."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mufin.artifacts.contents import contents_of
from mufin.artifacts.files import read_json
from mufin.artifacts.texts import NAME, further_texts
from mufin.catalogs.bad_rows import BAD
from mufin.corpus.text_rows import MARKUP, MORE, REPEATED
from mufin.errors import MufinError
from tests.support.catalogs import as_file
from tests.support.stages import inside, run_stages

CATALOG = {"download.source": "catalog", "curate.test": 0.0, "curate.valid": 0.0}
COUNTS = {"products_with_further_texts", "further_texts", "max_texts"}


def own(home: Path, path: Path, names: list[str], **settings) -> list[list[str]] | None:
    """The further texts of a catalog of one's own, after both stages."""
    changes = {"download.location": path.name, "download.columns.texts": names}
    with inside(home, **CATALOG | changes | settings):
        run_stages(home, "download", "curate")
    texts = further_texts(home / "data/curated")
    return None if texts is None else texts.to_pylist()


def shop(count: int) -> list[dict]:
    near = [[f"p{(i + step) % count}" for step in range(1, 5)] for i in range(count)]
    return [
        {"ASIN": f"p{i}", "title": f"thing {i}", "images": [], "also_buy": near[i], "category": []}
        | {"description": f"about {i}", "bullets": ["light", f"size {i}"]}
        for i in range(count)
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_texts_come_through_both_stages(name, tmp_path):
    rows = shop(6)
    rows[1]["description"] = "a | b > c,\n<b>d</b> &amp; e"  # one text, cleaned as titles are
    rows[2] |= {"description": "", "bullets": ["", "thing 2", "light", "light"]}
    rows[3] |= {"title": "", "description": "nan", "bullets": ["the only one"]}
    rows[4] |= {"description": "<br>", "bullets": []}
    rows.append(rows[0] | {"description": "of another row with the same id"})
    found = own(tmp_path, as_file(tmp_path / name, rows), ["bullets", "description"])
    assert found == [
        ["light", "size 0", "about 0"],
        ["light", "size 1", "a | b > c, d & e"],
        ["light"],
        ["the only one"],
        [],
        ["light", "size 5", "about 5"],
    ]
    raw = pq.read_table(tmp_path / "data/raw" / NAME)["texts"].to_pylist()
    assert raw[1] == ["light", "size 1", rows[1]["description"]] and raw[3] == ["the only one"]
    facts = read_json(tmp_path / "metrics/download.json")
    assert facts["max_texts"] == 8 and facts["products_with_further_texts"] == 7
    assert facts["further_texts"] == sum(map(len, raw))
    counts = read_json(tmp_path / "metrics/curate.json")
    assert counts["products_with_further_texts"] == 5
    assert counts["texts_per_datapoint"] == round((4 + 4 + 2 + 1 + 1 + 4) / 6, 3)
    assert [counts["dropped"][reason] for reason in (MARKUP, REPEATED, MORE)] == [1, 2, 0]


def test_numbers_are_texts_as_titles_are(tmp_path):
    rows = [row | {"bullets": [1, 2.5, None]} for row in shop(4)]
    rows[0]["description"] = 7
    path = as_file(tmp_path / "a.jsonl", rows)
    found = own(tmp_path, path, ["description", "bullets"])
    assert found == [["7", "1", "2.5"]] + [[f"about {i}", "1", "2.5"] for i in range(1, 4)]


def test_a_text_in_brackets_is_a_list_or_one_text(tmp_path):
    rows = [row | {"bullets": "['a', 'b | c']", "description": "[NEW] mug"} for row in shop(3)]
    found = own(tmp_path, as_file(tmp_path / "a.csv", rows), ["bullets", "description"])
    assert found == [["a", "b | c", "[NEW] mug"]] * 3


def test_the_most_texts_count_the_title(tmp_path):
    rows = shop(4)
    rows[1]["title"] = ""
    path, names = as_file(tmp_path / "a.jsonl", rows), ["bullets", "description"]
    found = own(tmp_path, path, names, **{"download.max_texts": 2})
    assert found == [["light"], ["light", "size 1"], ["light"], ["light"]]
    assert read_json(tmp_path / "metrics/curate.json")["dropped"][MORE] == 3 * 2 + 1


def test_without_the_setting_the_files_are_those_of_before(tmp_path):
    made = []
    for name, texts in ({"none": [], "title": ["title"], "texts": ["bullets"]}).items():
        (tmp_path / name).mkdir()
        path = as_file(tmp_path / name / "a.jsonl", shop(5))
        found = own(tmp_path / name, path, texts)
        assert (found is None) == (name != "texts")
        data = [contents_of(tmp_path / name / "data" / part).files for part in ("raw", "curated")]
        made.append(data + [read_json(tmp_path / name / "metrics/download.json")])
    assert made[0] == made[1]  # the title is a text of every product anyway
    assert NAME not in made[0][0] and NAME not in made[0][1]
    assert set(made[2][2]) - set(made[0][2]) == COUNTS
    for with_texts, without in zip(made[2][:2], made[0][:2]):
        with_texts.pop(NAME), with_texts.pop("source.json", None)
        assert with_texts == {k: v for k, v in without.items() if k != "source.json"}


def test_an_unknown_column_ends_the_stage(tmp_path):
    path = as_file(tmp_path / "a.jsonl", shop(5))
    with pytest.raises(MufinError, match="no column 'bullet' .*download.columns.texts to bullets"):
        own(tmp_path, path, ["bullet"])
    assert not (tmp_path / "data/raw").exists()


def test_an_object_in_place_of_a_text_is_a_bad_row(tmp_path):
    rows = shop(6)
    rows[4]["description"] = {"en": "about"}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(MufinError, match="line 5 has .* description.*description\\[\\].en"):
        own(tmp_path, tmp_path / "a.jsonl", ["description"])
    found = own(tmp_path, tmp_path / "a.jsonl", ["description"], **{"download.bad_rows": 0.5})
    assert found == [[f"about {i}"] for i in (0, 1, 2, 3, 5)]
    assert read_json(tmp_path / "metrics/download.json")["notes"][BAD]["count"] == 1
    found = own(tmp_path, tmp_path / "a.jsonl", ["description[].en"])
    assert found == [[], [], [], [], ["about"], []]
