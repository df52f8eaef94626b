"""`mufin doctor` on machines where something is missing, broken, slow or cut off."""

from __future__ import annotations

import json
import socket
import time
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mufin.cli import app
from mufin.commands import doctor
from mufin.commands.checks import encoders, finding, imports, machine, packages, project
from mufin.commands.checks.finding import FAILS, OK, WARNING, Finding
from mufin.commands.checks.imports import Imported, imported
from mufin.commands.checks.packages import Requirement
from mufin.profiles import read_profile, text_of_profile

NO_GPU = Imported("torch", "", "12.8")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A folder with settings, where packages are not really imported and DVC not really run."""
    (tmp_path / "params.yaml").write_text(text_of_profile("sample"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "imported", lambda names, home: [Imported(n, "") for n in names])
    monkeypatch.setattr(project, "DVC", ["sh", "-c", "echo 3.60.0"])
    monkeypatch.setattr(project, "cache", lambda home: home / ".dvc/cache")
    return tmp_path


def checks(code: int | None = None) -> dict[str, dict]:
    """{name: finding} of `mufin doctor --json`."""
    done = CliRunner().invoke(app, ["doctor", "--json"])
    said = json.loads(done.stdout)
    fails = [check for check in said["checks"] if check["state"] == FAILS]
    assert done.exit_code == (1 if fails else 0) and said["counts"][FAILS] == len(fails)
    assert code in (None, done.exit_code), fails
    assert all(check["state"] == OK or check["remedy"] for check in said["checks"])
    return {check["name"]: check for check in said["checks"]}


def test_a_line_per_check_and_a_remedy_per_fault(home):
    (home / "params.yaml").write_text("members: 0")
    done = CliRunner().invoke(app, ["doctor"])
    lines = done.stdout.splitlines()
    assert done.exit_code == 1 and done.stderr == ""
    assert all(line.split()[0] in (OK, WARNING, FAILS) for line in lines[:-1])
    assert any(line.startswith("fails    params.yaml") for line in lines)
    assert "that must be mended" in lines[-1]


def test_a_sound_machine_has_exit_code_0(home, monkeypatch):
    monkeypatch.setattr(project, "git", lambda home: [Finding("git", OK, "is there")])
    assert checks(0)["params.yaml"]["state"] == OK


def test_wrong_settings_fail_with_their_remedy(home):
    text = (home / "params.yaml").read_text()
    (home / "params.yaml").write_text(text.replace("\n  gamma:", "\n  gama:", 1))
    found = checks(1)["params.yaml"]
    assert "pretrain.gama is not a parameter" in found["text"]
    assert "did you mean" in found["remedy"]
    (home / "params.yaml").unlink()
    assert "mufin use" in checks(1)["params.yaml"]["remedy"]


def test_no_git_repository_fails(home):
    assert "git init" in checks(1)["git"]["remedy"]


def test_programs_that_are_missing_are_findings(home, monkeypatch):
    monkeypatch.setattr(project, "DVC", ["/nowhere/dvc"])
    monkeypatch.setenv("PATH", "/nowhere")
    found = checks(1)
    assert "cannot be run" in found["git"]["text"] and "cannot be run" in found["dvc"]["text"]


def test_wrong_environment_variables_are_findings(home, monkeypatch):
    monkeypatch.setenv("MUFIN_WORKERS", "many")
    monkeypatch.setenv("MUFIN_DEVICE", "cuda")
    found = checks(1)
    assert "MUFIN_WORKERS is 'many'" in found["memory"]["text"]
    assert found["MUFIN_DEVICE"]["state"] == FAILS


def test_a_check_that_raises_is_a_finding(home, monkeypatch):
    def broken(*_: object) -> None:
        raise ImportError("libfoo.so.1: cannot open\nshared object")

    monkeypatch.setattr(machine, "gpu", broken)
    found = checks(1)["gpu"]
    assert "ImportError: libfoo.so.1" in found["text"] and "\n" not in found["text"]


def test_a_folder_that_is_none_is_refused(home):
    done = CliRunner().invoke(app, ["doctor", "--home", "nowhere"])
    assert done.exit_code == 1 and "nowhere is not a folder" in done.stderr


# Imports


@pytest.fixture
def broken(tmp_path) -> Path:
    """A folder with modules that raise, crash, end Python, print, or never end."""
    modules = {
        "raises": "raise OSError('libgomp.so.1:\\ncannot open')",
        "crashes": "import os; os.abort()",
        "ends": "import os; os._exit(3)",
        "leaves": "raise SystemExit(0)",
        "prints": 'print(\'{"ends": "good", "error": "a lie"}\')',
        "good": "",
        "sleeps": "import time; time.sleep(600)",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def test_each_import_that_breaks_is_found_and_the_next_ones_tried(broken):
    names = ["raises", "crashes", "ends", "leaves", "prints", "good", "nowhere"]
    errors = {one.module: one.error for one in imported(names, broken)}
    assert list(errors) == names
    assert errors["raises"] == "OSError: libgomp.so.1: cannot open"
    assert errors["crashes"] == "its import ended Python with SIGABRT"
    assert errors["ends"] == "its import ended Python with exit code 3"
    assert errors["leaves"].startswith("SystemExit")
    assert errors["prints"] == errors["good"] == ""
    assert errors["nowhere"].startswith("ModuleNotFoundError")


def test_an_import_that_never_ends_is_cut_off(broken):
    began = time.monotonic()
    found = imported(["good", "sleeps", "prints"], broken, seconds=3)
    assert time.monotonic() - began < 10
    assert [bool(one.error) for one in found] == [False, True, True]
    assert "took more than" in found[1].error and "no time left" in found[2].error


def test_no_python_is_a_finding_of_each_module(broken, monkeypatch):
    monkeypatch.setattr(imports, "PROBE", "raise SystemExit(9)")
    assert "exit code 9" in imported(["good", "prints"], broken, seconds=20)[0].error


def test_a_program_is_killed_with_what_it_has_started(tmp_path):
    mark = tmp_path / "alive"
    words = ["sh", "-c", f"(sleep 3; touch {mark}) & sleep 600"]
    began = time.monotonic()
    assert finding.output_of(words, tmp_path, 0.5)[0] == 124
    assert time.monotonic() - began < 2.5
    time.sleep(3)
    assert not mark.exists()


# Packages


def of_packages(wanted: list[Requirement], errors: list[Imported], extra=()) -> list[Finding]:
    parts = {"": wanted, "serve": list(extra), "export": [], "heic": [], "baselines": []}
    return list(packages.findings(parts, errors))


def test_versions_are_compared_as_numbers(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.9.1+cpu")
    for least, state in (("2.11", FAILS), ("2.9", OK), ("2.9.1", OK), ("10", FAILS), ("", OK)):
        assert of_packages([Requirement("torch", least)], [])[0].state == state


def test_a_package_that_is_missing_or_broken_fails(monkeypatch):
    wanted = [Requirement("no-such-package", "1"), Requirement("numpy", "")]
    found = of_packages(wanted, [Imported("numpy", "ImportError: x")])
    assert [f.state for f in found[:2]] == [FAILS, FAILS]
    assert found[0].remedy == "pip install 'no-such-package>=1'"
    assert "cannot be imported: ImportError: x" in found[1].text


def test_an_extra_fails_nothing():
    half = [Requirement("no-such-package", ""), Requirement("numpy", "")]
    for extra, state in ((half, WARNING), (half[:1], OK), (half[1:], OK)):
        found = of_packages([], [], extra)[1]
        assert found.name == "extra serve" and found.state == state


def test_a_package_with_broken_metadata_is_a_finding(monkeypatch):
    def broken(name: str) -> str:
        raise KeyError("Version")

    monkeypatch.setattr(metadata, "version", broken)
    assert of_packages([Requirement("torch", "2")], [])[0].text == "is not installed"


def test_minimums_are_those_of_the_project_and_of_its_metadata(monkeypatch, tmp_path):
    own = packages.requirements()
    assert Requirement("torch", "2.11") in own[""]
    assert Requirement("pillow-heif", "1") in own["heic"] and own["heic"][0].module == "pillow_heif"
    monkeypatch.setattr(packages, "PYPROJECT", tmp_path / "none.toml")
    lines = ["torch>=2.11", 'omikuji>=0.5; extra == "baselines"']
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    assert packages.requirements()[""] == [Requirement("torch", "2.11")]
    assert packages.requirements()["baselines"] == [Requirement("omikuji", "0.5")]


# GPU, memory, disks


def gpu(torch: Imported | None, cards: list[list[str]], monkeypatch) -> list[Finding]:
    monkeypatch.setattr(machine, "_cards", lambda folder: cards)
    return list(machine.gpu(torch, Path(".")))


def test_a_gpu_is_named_with_memory_and_driver(monkeypatch):
    seen = Imported("torch", "", "12.8", (("NVIDIA H100", 85_000_000_000),))
    found = gpu(seen, [["NVIDIA H100", "81559 MiB", "570.1"]], monkeypatch)[-1]
    assert found == Finding("gpu", OK, "NVIDIA H100 with 85.0 GB; driver 570.1")


def test_a_card_that_torch_does_not_see_is_a_warning(monkeypatch):
    found = gpu(NO_GPU, [["NVIDIA H100", "81559 MiB", "470.1"]], monkeypatch)[-1]
    assert found.state == WARNING and "driver for CUDA 12.8" in found.remedy
    assert gpu(NO_GPU, [], monkeypatch)[-1].state == OK
    assert gpu(None, [], monkeypatch)[-1].state == FAILS
    assert gpu(Imported("torch", "OSError: x"), [], monkeypatch)[-1].text == "OSError: x"


def test_memory_and_disks_are_compared_with_the_run(tmp_path, monkeypatch):
    few, many = 1.0, 1e18
    assert list(machine.cores_and_memory(few))[1].state == OK
    assert list(machine.cores_and_memory(many))[1].state == WARNING
    assert list(machine.disk({"x": tmp_path / "not/yet"}, few))[0].state == OK
    assert list(machine.disk({"x": tmp_path}, many))[0].state == WARNING


def test_the_limit_of_a_container_is_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "GROUP", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("1000000\n")
    assert machine.total_memory() == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.total_memory() > 1_000_000


@pytest.mark.parametrize("content", ["", "[]", '{"train": "x"}', '{"train": 1367}'])
def test_the_estimate_is_scaled_from_the_last_run(tmp_path, content):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/curate.json").write_text(content)
    known = project.memory_needed(tmp_path)
    assert known is None if "1367" not in content else 1.4e9 < (known or 0) < 1.7e9


# Encoders


def of_encoder(monkeypatch, refusal: str, **text) -> Finding:
    monkeypatch.setattr(encoders, "unreachable", lambda: refusal)
    from dataclasses import replace

    params = read_profile("paper")
    changed = replace(params.encoder.text, **text)
    params = replace(params, encoder=replace(params.encoder, text=changed))
    return list(encoders.encoders(params, Path(".")))[-1]


def test_an_encoder_is_a_folder_a_copy_or_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert of_encoder(monkeypatch, "").text.endswith("fetched from https://huggingface.co")
    found = of_encoder(monkeypatch, "no route")
    assert found.state == FAILS and "no route" in found.text and "HF_HOME" in found.remedy
    copy = tmp_path / "hub-home/hub/models--a--b/snapshots/1"
    copy.mkdir(parents=True)
    assert of_encoder(monkeypatch, "no route", name="a/b").state == FAILS  # an empty copy is none
    (copy / "config.json").write_text("{}")
    assert of_encoder(monkeypatch, "no route", name="a/b").state == OK
    (tmp_path / "mine").mkdir()
    assert of_encoder(monkeypatch, "no route", name="./mine").state == OK
    assert of_encoder(monkeypatch, "", name="./none").state == FAILS
    assert of_encoder(monkeypatch, "no route", name="bert", weights="random").state == OK
    assert of_encoder(monkeypatch, "", weights="no.bin").name == "encoder.text.weights"


def test_a_hub_that_does_not_answer_is_waited_for_briefly(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(encoders, "SECONDS", 0.5)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert encoders.unreachable()
        assert time.monotonic() - began < 3
    assert encoders.unreachable()  # refused now
    monkeypatch.setenv("HF_ENDPOINT", "no url")
    assert "unknown url type" in encoders.unreachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert encoders.unreachable() == "HF_HUB_OFFLINE is set"


def test_packages_of_this_machine_are_imported():
    names = [r.module for r in packages.requirements()[""] if r.package in ("numpy", "pillow")]
    assert imported(names, Path(".")) == [Imported("PIL", ""), Imported("numpy", "")]
