"""`mufin predict`: rows for lines, bad lines, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mufin.cli import app
from mufin.commands import predict as predicting
from mufin.commands import predict_answers, predict_lines
from tests.support.answering import Answering, answered_by, catalog
from tests.support.projects import ROOT


@pytest.fixture
def recommender(tmp_path, monkeypatch) -> Answering:
    """What `mufin predict` asks, in a folder with a catalog and two pictures."""
    monkeypatch.chdir(tmp_path)
    recommender = Answering()
    answered_by(recommender, monkeypatch)
    catalog(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/front.jpg").write_bytes(b"picture")
    (tmp_path / "in/broken.jpg").write_bytes(b"broken")
    return recommender


def write(*objects: object) -> None:
    Path("in/p.jsonl").write_text("".join(json.dumps(o) + "\n" for o in objects))


def predict(*words: str) -> str:
    done = CliRunner().invoke(app, ["predict", "in/p.jsonl", "out.parquet", *words])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*words: str) -> str:
    done = CliRunner().invoke(app, ["predict", "in/p.jsonl", "out.parquet", *words])
    assert done.exit_code == 1 and done.stdout == "", done.output
    [line] = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    return line


def rows() -> list[dict]:
    assert not Path("out.parquet.parts").exists()
    return pq.read_table("out.parquet").to_pylist()


def test_answers_are_row_for_row_with_the_lines(recommender):
    new = {"id": "né", "title": "Pot", "images": ["front.jpg"], "category": ["Home"]}
    new["texts"] = ["of iron", "for 2 l"]
    write({"uid": "a"}, new, {"uid": "bare"}, {"id": "x", "uid": "c"}, {"uid": "a"})
    assert predict("--k", "2", "--batch", "2").endswith("out.parquet has 5 rows\n")
    table = pq.read_table("out.parquet")
    kinds = [pa.string(), pa.list_(pa.string()), pa.list_(pa.float32()), pa.bool_()]
    assert table.schema.names == ["id", "labels", "score", "fallback"]
    assert [t.value_type if i in (1, 2) else t for i, t in enumerate(table.schema.types)] == [
        kinds[0],
        pa.string(),
        pa.float32(),
        kinds[3],
    ]
    assert [row["id"] for row in rows()] == ["a", "né", "bare", "x", "a"]
    assert rows()[0] == {
        "id": "a",
        "labels": ["b\u2028", "c"],
        "score": [0.5, -0.5],
        "fallback": False,
    }
    assert rows()[1]["score"] == [3.5, 2.5] and rows()[2]["fallback"]
    asked = recommender.asked[1].new
    assert asked and asked.pictures == (b"picture",) and asked.category == ("Home",)
    assert asked.texts == ("of iron", "for 2 l")


BAD = [
    ("{", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ("7", "it is 7; give an object"),
    ('{"uid": "nowhere"}', "'nowhere' is not a product of the catalog"),
    ('{"uid": 7}', "its id is 7; give a text"),
    ('{"title": "Pot"}', "its id is None; give a text"),
    ('{"id": "x", "titel": "Pot"}', "it has 'titel'; did you mean title?"),
    ('{"id": "x"}', "it has neither title, texts nor images"),
    ('{"id": "x", "title": " "}', "it has neither title, texts nor images"),
    ('{"id": "x", "title": 7}', "its title is 7; give a text"),
    ('{"id": "x", "texts": "of iron"}', "its texts is 'of iron'; give a list of texts"),
    ('{"id": "x", "texts": [" "]}', "it has neither title, texts nor images"),
    (json.dumps({"id": "x", "texts": ["a"] * 101}), "it has 101 texts; give at most 100"),
    ('{"id": "x", "title": "P", "images": "front.jpg"}', "its images is 'front.jpg'; give a list"),
    ('{"id": "x", "images": ["no.jpg"]}', "no.jpg cannot be read: No such file"),
    ('{"id": "x", "images": ["."]}', "it is a folder"),
    ('{"id": "x", "images": ["a\\u0000b"]}', "cannot be read"),
    ('{"id": "x", "images": ["broken.jpg"]}', "a picture cannot be read"),
    (json.dumps({"id": "x", "images": ["front.jpg"] * 101}), "it has 101 images; give at most"),
    ('{"id": "\\ud800", "title": "P"}', "its id is '\\ud800'; give a text"),
    ('{"id": "x", "title": "\\ud800"}', "its title is"),
    ('{"uid": "a", "title": "Pot"}', "it has uid and title"),
    ('{"id": "x", "title": "' + "P" * 2**20 + '"}', "it has more than 1,048,576 bytes"),
    (b'{"id": "\xff"}', "it is not UTF-8"),
]


@pytest.mark.parametrize("line, sentence", BAD, ids=[sentence for _, sentence in BAD])
def test_a_bad_line_is_one_sentence_or_a_row_without_answers(recommender, line, sentence):
    content = line if isinstance(line, bytes) else line.encode()
    Path("in/p.jsonl").write_bytes(b'{"uid": "a"}\n\n' + content + b'\n{"uid": "c"}')
    text = refused("--batch", "2")
    assert "in/p.jsonl line 3: " in text and sentence in text and "--bad-lines skip" in text
    said = predict("--bad-lines", "skip", "--batch", "2")
    assert "3 rows; 1 bad lines have a row without answers" in said
    assert "skipped: in/p.jsonl line 3:" in said
    first, bad, last = rows()
    assert first["labels"] and last["labels"]
    assert bad["labels"] is bad["score"] is bad["fallback"] is None


def test_bad_lines_are_found_before_anything_is_answered(recommender):
    write(*[{"uid": "a"}] * 50, {"uid": "nowhere"})
    assert "line 51" in refused("--batch", "2")
    assert not recommender.asked and not Path("out.parquet.parts").exists()


@pytest.mark.parametrize(
    "name, sentence",
    [("in/none.jsonl", "No such file"), ("in", "is not a file"), ("in/empty.jsonl", "no lines")],
)
def test_an_unusable_input_is_one_sentence(recommender, name, sentence):
    Path("in/empty.jsonl").write_text("\n\n")
    done = CliRunner().invoke(app, ["predict", name, "out.parquet"])
    assert done.exit_code == 1 and sentence in done.stderr


def test_a_byte_order_mark_and_windows_lines_are_read(recommender):
    Path("in/p.jsonl").write_bytes(b'\xef\xbb\xbf{"uid": "a"}\r\n{"uid": "c"}\r\n')
    predict()
    assert [row["id"] for row in rows()] == ["a", "c"]


def test_no_foreign_file_or_folder_is_replaced(recommender):
    write({"uid": "a"})
    for content in (b"mine", b""):
        Path("out.parquet").write_bytes(content)
        assert content == b"" or "is not a file of this command" in refused()
        assert Path("out.parquet").read_bytes() == content
    pq.write_table(pa.table({"mine": [1]}), "out.parquet")
    assert "--force replaces it" in refused()
    predict("--force")
    Path("out.parquet.parts").mkdir()
    Path("out.parquet.parts/mine").write_text("precious")
    assert "was not made by this command" in refused()
    assert Path("out.parquet.parts/mine").read_text() == "precious"


def test_the_same_run_again_asks_nothing(recommender):
    write({"uid": "a"}, {"id": "x", "images": ["front.jpg"]})
    predict()
    before = len(recommender.asked)
    assert "has the answers to this file already" in predict()
    assert len(recommender.asked) == before and len(rows()) == 2


CHANGES = ["k", "line", "picture", "model", "settings"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_the_answers_makes_another_run(recommender, change):
    write({"uid": "a"}, {"id": "x", "images": ["front.jpg"]})
    predict()
    before = len(recommender.asked)
    if change == "line":
        write({"uid": "a"}, {"id": "y", "images": ["front.jpg"]})
    elif change == "picture":
        Path("in/front.jpg").write_bytes(b"another")
        os.utime("in/front.jpg", (1, 1))
    elif change == "model":
        recommender.model = "model 2"
    elif change == "settings":
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(text.replace("candidates: all", "candidates: shortlist"))
    predict(*(["--k", "1"] if change == "k" else []))
    assert len(recommender.asked) == before + 2


def test_pictures_held_at_once_are_bounded(recommender, monkeypatch):
    monkeypatch.setattr(predict_answers, "HELD", 20)  # bytes; the picture has 7
    most = []
    real = recommender.answers

    def answers(queries):
        most.append(sum(len(p) for q in queries if q.new for p in q.new.pictures))
        return real(queries)

    recommender.answers = answers
    write(*[{"id": str(n), "images": ["front.jpg"]} for n in range(10)])
    predict()
    assert len(rows()) == 10 and max(most) <= 20 + 7 and len(most) > 3


def test_lines_are_read_batch_by_batch(recommender, monkeypatch):
    """Of 200 lines, never more than a batch is held: each is a file position apart."""
    write(*[{"uid": "a"}] * 200)
    reader = predict_lines.Reader(Path("in/p.jsonl"), frozenset("a"), 100)
    batches = reader.batches(7, skipped=3)
    assert [line.number for line in next(batches)] == list(range(22, 29))


# Kills

SCRIPT = """
import pytest, sys
from mufin.cli import main
from tests.support.answering import Answering, answered_by
recommender = Answering(slow={slow})
answered_by(recommender, pytest.MonkeyPatch())
sys.argv = ["mufin", "predict", "in/p.jsonl", "out.parquet", "--batch", "3"]
try:
    main()
finally:
    print("asked", len(recommender.asked), file=sys.stderr)
"""


def started(slow: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(slow=slow)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_parts(count: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while len(list(Path("out.parquet.parts").glob("part-*"))) < count:
        assert process.poll() is None and time.monotonic() < end, "it ended before the kill"
        time.sleep(0.01)


def many(changed: str = "") -> None:
    write(*[{"id": f"{n}{changed}", "title": "P" * (n % 5 + 1)} for n in range(60)])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=str)
def test_a_killed_run_continues_where_it_stopped(recommender, number):
    many()
    process = started(0.05)
    wait_for_parts(4, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    codes = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert process.returncode == codes[number], stderr
    if number != signal.SIGKILL:
        assert "run the same command to continue" in stderr and "Traceback" not in stderr
    assert not Path("out.parquet").exists()
    done = len(list(Path("out.parquet.parts").glob("part-*")))
    again = started(0.0)
    _, stderr = again.communicate(timeout=60)
    assert again.returncode == 0 and f"continues after {done} of 20 parts" in stderr
    assert f"asked {60 - 3 * done}\n" in stderr
    resumed = rows()
    Path("out.parquet").unlink()
    predict("--batch", "3")
    assert resumed == rows() and [row["id"] for row in resumed] == [str(n) for n in range(60)]


def test_a_changed_input_starts_anew_after_a_kill(recommender):
    many()
    process = started(0.05)
    wait_for_parts(2, process)
    process.kill()
    process.communicate()
    many("x")
    predict("--batch", "3")
    assert len(recommender.asked) == 60
    assert [row["id"] for row in rows()] == [f"{n}x" for n in range(60)]


def test_two_runs_of_one_output_are_refused(recommender):
    many()
    process = started(0.05)
    try:
        wait_for_parts(1, process)
        assert "another process is writing out.parquet" in refused("--batch", "3")
    finally:
        process.kill()
        process.communicate()


def test_a_kill_between_output_and_clean_up_leaves_no_parts(recommender, monkeypatch):
    write({"uid": "a"})
    with monkeypatch.context() as patch:
        patch.setattr(predicting.Parts, "remove", lambda parts: None)
        predict()
    assert Path("out.parquet.parts").exists()
    assert "already" in predict() and len(rows()) == 1


def test_a_damaged_part_is_one_sentence(recommender, monkeypatch):
    write(*[{"uid": "a"}] * 4)
    with monkeypatch.context() as patch:
        patch.setattr(predicting.Parts, "join", lambda parts: (0, 0))
        predict("--batch", "2")
    part = Path("out.parquet.parts/part-00000001.parquet")
    content = bytearray(part.read_bytes())
    content[4:40] = bytes(36)  # in the first column, which is not looked at until the end
    part.write_bytes(content)
    assert "part-00000001.parquet is damaged; delete out.parquet.parts" in refused("--batch", "2")
    part.write_bytes(b"cut")
    predict("--batch", "2")
    assert len(rows()) == 4 and len(recommender.asked) == 6


def test_skipping_continues_a_run_that_a_bad_line_has_ended(recommender):
    write({"uid": "a"}, {"uid": "c"}, {"id": "x", "images": ["broken.jpg"]}, {"uid": "a"})
    assert "line 3: a picture cannot be read" in refused("--batch", "1")
    said = predict("--batch", "1", "--bad-lines", "skip")
    assert "continues after 2 of 4 parts" in said and rows()[2]["labels"] is None
    assert "line 3: a picture cannot be read" in refused("--batch", "1")  # not "already"


def test_a_trained_model_predicts_what_it_recommends(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    table = pq.read_table(finished / "data/curated/products.parquet")
    uids = table["uid"].to_pylist()[:5]
    write(*[{"uid": uid} for uid in uids], {"id": "new", "title": "Mug, small"})
    predict("--home", str(finished), "--k", "3", "--batch", "4")
    words = [*uids, "--title", "Mug, small", "--k", "3", "--home", str(finished)]
    done = CliRunner().invoke(app, ["recommend", *words])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for row, line in zip(rows(), lines, strict=True):
        assert row["labels"] == [answer["uid"] for answer in line["recommended"]]
        assert row["score"] == pytest.approx([a["score"] for a in line["recommended"]], abs=1e-3)
