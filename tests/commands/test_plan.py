"""`mufin plan`: its table, its verdict, and the tables of docs/scale.md."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from typer.testing import CliRunner

from mufin.cli import app
from tests.support.projects import ROOT
from tests.test_structure import ORDER

COMMAND = re.compile(
    r"```\nMUFIN_RECOMPUTE=1 mufin (plan --profile [^\n]*)\n(stage .*?)```", re.DOTALL
)
DOCUMENTED = COMMAND.findall((ROOT / "docs/scale.md").read_text())
OF_MACHINES = re.compile(r"```\nmufin (plan --profile [^\n]*)\n(machines .*?)```", re.DOTALL)
MACHINES = OF_MACHINES.findall((ROOT / "docs/scale.md").read_text())
OF_SAMPLE = ["plan", "--profile", "sample", "--cpu-gflops", "100", "--disk", "10", "--gpu-memory"]


@pytest.fixture(autouse=True)
def without_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_tables_of_the_docs_are_what_the_command_prints(monkeypatch):
    monkeypatch.setenv("MUFIN_RECOMPUTE", "1")
    assert len(DOCUMENTED) == 2
    for words, table in DOCUMENTED:
        done = CliRunner().invoke(app, shlex.split(words))
        assert table in done.stdout + "\n", words


def test_tables_of_machines_in_the_docs_are_what_is_printed():
    assert len(MACHINES) == 2
    for words, table in MACHINES:
        done = CliRunner().invoke(app, shlex.split(words))
        assert table in done.stdout + "\n", words


def test_machines_share_work_and_not_what_each_must_fetch():
    words = [*OF_SAMPLE, "0", "--memory", "8", "--products", "1000000", "--machines", "8", "--json"]
    one, four, eight = json.loads(CliRunner().invoke(app, words).stdout)["machines"]
    assert [row["machines"] for row in (one, four, eight)] == [1, 4, 8]
    assert one["hours_pictures"] > four["hours_pictures"] > eight["hours_pictures"] > 0
    assert four["hours_pictures"] >= one["hours_pictures"] / 4
    assert one["store"] == 0 < four["store"] == eight["store"]
    assert four["each"] >= eight["each"] > 0
    assert one["hours_titles"] == four["hours_titles"] == 0  # all of E_T trains


def test_machines_share_the_frozen_part_of_the_text_encoder():
    words = [*OF_SAMPLE, "0", "--products", "1000000", "--machines", "8", "--json"]
    words[words.index("sample")] = "small-catalog"
    one, four, eight = json.loads(CliRunner().invoke(app, words).stdout)["machines"]
    assert one["hours_titles"] > four["hours_titles"] > eight["hours_titles"] > 0
    assert one["hours_titles"] / 8 <= eight["hours_titles"]


def test_the_sample_fits_and_every_stage_has_a_line():
    done = CliRunner().invoke(app, [*OF_SAMPLE, "0", "--memory", "8"])
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines() if line[:1].isalpha()][2:-3] == [
        *ORDER
    ]
    assert "fits in 8.0 GB of memory, no GPU, 10 GB free on disk" in done.stdout


def test_encoders_computed_twice_need_less_memory_and_more_operations(monkeypatch):
    words = ["plan", "--profile", "paper", "--products", "10000", "--images", "50000", "--json"]
    words += ["--gpu-memory", "24", "--memory", "64", "--cpu-gflops", "100", "--disk", "4000"]
    found = []
    for value in ("0", "1"):
        monkeypatch.setenv("MUFIN_RECOMPUTE", value)
        stages = json.loads(CliRunner().invoke(app, words).stdout)["stages"]
        found.append({stage["stage"]: stage for stage in stages})
    plain, twice = (of["pretrain"] for of in found)
    assert twice["gpu_memory"] < plain["gpu_memory"] / 2
    assert 1.2 < twice["flop"] / plain["flop"] < 4 / 3
    assert found[0]["retrieve"] == found[1]["retrieve"]


def test_what_does_not_fit_is_named_and_ends_with_1():
    done = CliRunner().invoke(app, [*OF_SAMPLE, "0.5", "--memory", "1"])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: the run does not fit this machine in ")
    assert done.stderr.count("\n") == 1
    assert re.search(
        r"finetune: [\d.]+ GB of GPU memory for train, and there are 0.5 GB", done.stdout
    )


def test_json_is_one_document_with_all_phases():
    done = CliRunner().invoke(app, [*OF_SAMPLE, "24", "--memory", "8", "--json"])
    said = json.loads(done.stdout)
    assert [stage["stage"] for stage in said["stages"]] == ORDER
    assert said["does_not_fit"] == [] and said["sizes"]["products"] == 3000
    for stage in said["stages"]:
        memory = [sum(phase["memory"].values()) for phase in stage["phases"]]
        assert stage["memory"] == pytest.approx(max(memory, default=0))


def test_more_products_take_more_of_everything():
    few, many = (
        json.loads(
            CliRunner().invoke(app, [*OF_SAMPLE, "24", "--json", "--products", str(n)]).stdout
        )["stages"]
        for n in (10_000, 40_000)
    )
    for a, b in zip(few, many):
        for what in ("flop", "memory", "written", "seconds_gpu", "seconds_cpu"):
            assert a[what] <= b[what], (a["stage"], what)
    written = [sum(stage["written"] for stage in stages) for stages in (few, many)]
    assert 2.5 < written[1] / written[0] < 4  # encoders and word vectors do not grow


def test_no_sizes_are_asked_for_in_a_sentence():
    done = CliRunner().invoke(app, ["plan", "--profile", "paper", "--cpu-gflops", "1"])
    assert done.exit_code == 1 and "give --products" in done.stderr
