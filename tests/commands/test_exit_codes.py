"""The start of `mufin`, its help, and its exit codes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mufin.cli import app
from tests.support.projects import ROOT

COMMANDS = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
HEAVY = ("torch", "numpy", "pyarrow", "polars", "PIL", "transformers", "requests", "rich", "yaml")
WAITING = """
import sys
from pathlib import Path
from mufin import switching
from mufin.cli import main

def waits(*_):
    print("ready", flush=True)
    while True:
        pass
    yield

switching.use = waits
sys.argv = ["mufin", "use", "sample"]
main()
"""


def started(*words: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=str)
def test_help_imports_no_heavy_package_and_no_command(tmp_path, words):
    script = (
        "import sys; from mufin.cli import app\n"
        f"app({words!r}, standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    out, err = started("-c", script, folder=tmp_path).communicate()
    modules = set(out.splitlines()[-1].split())
    assert "typer" in modules and not modules & {*HEAVY, "mufin.params", "ruamel"}, err
    commands = {name for name in modules if name.startswith("mufin.commands.")}
    assert commands == {"mufin.commands.console"}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_an_example(command):
    text = CliRunner().invoke(app, [command, "--help"]).stdout
    assert re.search(rf"^ +mufin {command}\b", text, re.MULTILINE)


def test_help_and_page_name_the_same_exit_codes():
    """Each of them is tested below."""
    text = CliRunner().invoke(app, ["--help"]).stdout.partition("Exit codes:")[2]
    codes = re.findall(r"^ +(\d+) ", text, re.MULTILINE)
    page = (ROOT / "docs/command-line.md").read_text().partition("## Exit codes")[2]
    assert codes == ["0", "1", "2", "130", "143"] == re.findall(r"^\| (\d+) \|", page, re.MULTILINE)


@pytest.mark.parametrize(
    "words, code",
    [
        (["use", "sample"], 0),
        (["--version"], 0),
        (["use", "no-such-profile"], 1),
        (["recommend", "X"], 1),
        (["info", "nowhere"], 1),
        (["no-such-command"], 2),
        (["use"], 2),
        (["use", "sample", "--no-such-option"], 2),
        (["recommend", "X", "--k", "0"], 2),
        (["predict", "a", "b", "--bad-lines", "maybe"], 2),
        ([], 2),
    ],
    ids=str,
)
def test_errors_have_the_exit_codes_that_help_says(tmp_path, words, code):
    process = started("-m", "mufin.cli", *words, folder=tmp_path)
    out, err = process.communicate()
    assert process.returncode == code, err
    assert "Traceback" not in err
    if code == 1:
        assert err.startswith("error: ") and err.count("\n") == 1 and not out


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str)
def test_a_signal_ends_a_command_in_one_sentence(tmp_path, number, code):
    process = started("-c", WAITING, folder=tmp_path)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    began = time.monotonic()
    _, err = process.communicate()
    assert process.returncode == code and time.monotonic() - began < 8
    assert err.startswith("error: mufin was interrupted") and err.count("\n") == 1


def test_a_closed_pipe_ends_a_command_without_a_traceback(tmp_path):
    body = "while True:\n        pass\n    yield"
    assert body in WAITING
    script = WAITING.replace(body, 'yield from ["x" * 100] * 100_000')
    process = started("-c", script, folder=tmp_path)
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 1 and "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(tmp_path, shell):
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    script = "from mufin.cli import app; app(prog_name='mufin')"
    words = [sys.executable, "-c", script, "--install-completion", shell]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_MUFIN_COMPLETE" in path.read_text() for path in written)
