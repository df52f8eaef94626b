"""`mufin recommend`: what the options ask of the recommender, and how answers are printed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mufin.cli import app
from mufin.commands import recommend
from mufin.commands.answer_lines import Answered, table_of
from mufin.serving.answers import Descriptor, Reason
from mufin.serving.query import NewProduct, Query
from tests.support import answering
from tests.support.answering import TITLES, Answering, answered_by, catalog


@pytest.fixture
def recommender(tmp_path, monkeypatch) -> Answering:
    """What `mufin recommend` asks, in a folder with a catalog."""
    monkeypatch.chdir(tmp_path)
    recommender = Answering()
    answered_by(recommender, monkeypatch)
    catalog(tmp_path)
    return recommender


def lines(*words: str) -> list[dict]:
    done = CliRunner().invoke(app, ["recommend", *words])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(*words: str) -> str:
    done = CliRunner().invoke(app, ["recommend", *words])
    assert done.exit_code == 1 and done.stdout == "", done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


def test_options_become_the_query(recommender, tmp_path):
    (tmp_path / "front.jpg").write_bytes(b"picture")
    (tmp_path / "some.txt").write_text("\ufeffa\r\n\n c \na\n", encoding="utf-8")
    words = (
        "a --basket --k 3 --avoid c --exclude bare --exclude c --candidates some.txt --fold --why"
    )
    where = ["--where", "price<=20", "--where", "price>5", "--where", "in_stock=TRUE"]
    new = ["--title", "Pot", "--image", "front.jpg", "--category", "Home", "--category", "Kitchen"]
    new += ["--text", "of iron", "--text", "for 2 l"]
    lines(*words.split(), *where, *new)
    [query] = recommender.asked
    assert (query.uids, query.k, query.avoid) == (("a",), 3, ("c",))
    assert (query.exclude, query.candidates) == (("bare", "c"), ("a", "c"))
    assert query.where == {"price": {"lte": 20.0, "gt": 5.0}, "in_stock": True}
    assert query.fold and query.reasons and query.new is not None
    assert (query.new.title, query.new.pictures) == ("Pot", (b"picture",))
    assert query.new.category == ("Home", "Kitchen")
    assert query.new.texts == ("of iron", "for 2 l")


def test_a_basket_is_one_question_and_one_line(recommender):
    [line] = lines("a", "c", "--basket", "--title", "Pot")
    assert line["basket"] == ["a", "c"] and line["uid"] is None and line["title"] == "Pot"
    assert [answer["uid"] for answer in line["recommended"]] == ["b\u2028"]
    assert len(recommender.asked) == 1
    assert [line["uid"] for line in lines("a", "c", "--title", "Pot")] == ["a", "c", None]


def test_reasons_are_printed_only_if_asked_for(recommender):
    plain, why = lines("a")[0]["recommended"][0], lines("a", "--why")[0]["recommended"][0]
    assert list(plain) == ["uid", "title", "score"]
    assert why["parts"] == {"classifier": 0.25, "similarity": 0.25}
    assert why["why"][0]["query"] == {"uid": "a", "kind": "picture", "number": 1}
    assert why["why"][0]["weight"] == 0.25


def test_reasons_quote_texts(recommender, monkeypatch):
    text = Reason(
        Descriptor(None, "text", 1, "of iron"), Descriptor("c", "title", 0), 0.5, "cosine"
    )
    monkeypatch.setattr(answering, "WHY", (text,))
    [line] = lines("--text", "of iron", "--why")
    query = {"uid": None, "kind": "text", "number": 1, "text": "of iron"}
    assert line["recommended"][0]["why"][0]["query"] == query
    [answers] = recommender.answers([Query(new=NewProduct(), reasons=True)])
    table = list(table_of(Answered(Query(reasons=True), "", answers)))
    assert any('0.50 cosine: new product text 2 "of iron" -> c title' in row for row in table)


def test_answers_by_popularity_are_marked(recommender):
    assert "fallback" not in lines("a")[0]
    assert lines("bare")[0]["fallback"] is True


def test_all_asks_for_each_product_in_batches(recommender, monkeypatch):
    monkeypatch.setattr(recommend, "TOGETHER", 3)
    assert [line["uid"] for line in lines("--all")] == list(TITLES)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["nowhere"], "nowhere is not a product of the catalog"),
        (["a", "--all"], "--all and 'a' are given"),
        (["--all", "--basket"], "--all and --basket are given"),
        (["a", "--candidates", "no.txt"], "no.txt does not exist; give the path of a file"),
        (["a", "--candidates", "params.yaml/x"], "cannot be read"),
        (["a", "--candidates", "/dev/null"], "not a regular file"),
        (["a", "--candidates", "blank.txt"], "has no product ids; write one per line"),
        (["a", "--candidates", "latin.txt"], "latin.txt line 2 is not UTF-8"),
        (["--text", "\udcff"], "--text is '\\udcff', which is not UTF-8"),
        (["a", "--title", "\udcff"], "--title is '\\udcff', which is not UTF-8"),
        (["\udcff"], "is not UTF-8; write it in UTF-8"),
        (["a", "--where", "price~5"], "is not a condition; write one such as 'price<=20'"),
        (["a", "--where", "price="], "is not a condition"),
        (["a", "--where", "=5"], "is not a condition"),
        (["a", "--where", "price<dear"], "--where price is 'dear'; give a number"),
        (["a", "--where", "price=nan"], "give a number"),
        (["a", "--where", "price=1_0"], "give a number"),
        (["a", "--where", "price=1", "--where", "price=2"], "twice; give a list such as a,b"),
        (["a", "--where", "price<1", "--where", "price<2"], "twice; give one bound"),
        (["a", "--where", "price<1", "--where", "price=2"], "with = and with a bound"),
        (["a", "--where", "in_stock=yes"], "in_stock is 'yes'; give true or false"),
        (["a", "--where", "in_stock>0"], "a bound of in_stock, a column of flags"),
        (["a", "--where", "category<Mugs"], "a column of texts; use ="),
        (["a", "--where", "category=Mug"], "no answer has; did you mean 'Mugs'?"),
        (["a", "--where", 'category="Mugs'], "whose quotes do not match"),
        (["a", "--home", "nowhere"], "nowhere/params.yaml is missing"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(recommender, tmp_path, words, sentence):
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"a\n\xff\n")
    assert sentence in refused(*words)


@pytest.mark.parametrize(
    "words, where",
    [
        (["price=5"], {"price": 5.0}),
        (["price == 5,7.5"], {"price": [5.0, 7.5]}),
        (["price>=-1e2"], {"price": {"gte": -100.0}}),
        (["in_stock=false"], {"in_stock": False}),
        (['category="Cups, big",Mugs'], {"category": ["Cups, big", "Mugs"]}),
        (["brand=<b>"], {"brand": "<b>"}),  # there are more brands than the recommender names
        (["brand=7"], {"brand": "7"}),
        (["colour=red"], {"colour": "red"}),  # an unknown column, which the recommender refuses
        (["width<3"], {"width": {"lt": 3.0}}),
    ],
)
def test_a_condition_has_the_type_of_its_column(recommender, words, where):
    lines("a", *(word for text in words for word in ("--where", text)))
    assert recommender.asked[0].where == where


# On a terminal


def test_a_terminal_gets_a_table_and_json_by_request(recommender, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for json_wanted in (False, True):
        recommend.recommend(recommend.Request(uids=["a"], why=True, json=json_wanted))
    table, line = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert json.loads(line)["uid"] == "a"
    assert "   1    0.5000  b\\u2028  Jar" in table and table.startswith("a  Mug \\x1b[2J")
    assert "0.25 cosine: a picture 2 -> c title" in table
    assert all(row.isprintable() for row in table.split("\n"))


def test_a_table_fits_the_terminal(recommender, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    query = Query(uids=("a",), reasons=True)
    [answers] = recommender.answers([query])
    rows = list(table_of(Answered(query, "long " * 50 + "\nline", answers)))
    assert max(map(len, rows)) == 40 and rows[0].endswith("...")


def test_a_table_says_why_it_is_empty(recommender):
    query = Query(uids=("a",), exclude=("x",))
    assert "look at --where" in "\n".join(table_of(Answered(query, "", [])))
    assert "look at --where" not in "\n".join(table_of(Answered(Query(uids=("a",)), "", [])))


# The real one


def test_a_trained_model_answers_the_same_alone_and_in_all(finished):
    os.environ |= {"MUFIN_DEVICE": "cpu", "MUFIN_WORKERS": "1"}
    every = lines("--all", "--home", str(finished), "--k", "4")
    chosen = [every[0]["uid"], every[5]["uid"]]
    assert lines(*chosen, "--home", str(finished), "--k", "4") == [every[0], every[5]]
    answer = every[0]["recommended"][1]["uid"]
    (Path(finished).parent / "one.txt").write_text(answer)
    words = ["--candidates", str(Path(finished).parent / "one.txt"), "--home", str(finished)]
    [line] = lines(chosen[0], *words)
    assert [best["uid"] for best in line["recommended"]] == [answer]
    assert "where.'no' is not a column" in refused(
        chosen[0], "--where", "no=red", "--home", str(finished)
    )


def test_a_trained_model_answers_within_the_conditions(finished):
    os.environ |= {"MUFIN_DEVICE": "cpu", "MUFIN_WORKERS": "1"}
    table = pq.read_table(finished / "data/curated/attributes.parquet")
    colours = dict(zip(table["uid"].to_pylist(), table["colour"].to_pylist()))
    uid = next(iter(colours))
    words = ["--where", "colour=red,blue", "--home", str(finished), "--k", "100"]
    [line] = lines(uid, *words)
    found = [answer["uid"] for answer in line["recommended"]]
    [all_of_them] = lines(uid, "--home", str(finished), "--k", "200")
    expected = [a["uid"] for a in all_of_them["recommended"]]
    assert found == [u for u in expected if colours[u] in ("red", "blue")] and found
