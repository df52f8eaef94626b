"""Ctrl-C and SIGTERM end a stage soon, in one sentence and whatever it does; no process is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mufin import interrupts
from tests.support.projects import ROOT, changed, environment
from tests.support.stages import QUICK, inside, run_stages

SOON = 8.0  # seconds; it takes two at most where the cores are free

# What the main thread of a stage does when the signal comes; it has printed "ready" before
BUSY = {
    "python": "while True: pass",
    "sleep": "time.sleep(600)",
    "a call of a C library": "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",
    "a thread that never ends": """
with concurrent.futures.ThreadPoolExecutor() as pool:
    pool.submit(time.sleep, 600)
""",
    "an error handler": """
while True:
    try:
        time.sleep(600)
    except Exception:
        pass
""",
    "a publication": """
with publish(Path("data/raw")) as folder:
    folder.mkdir()
    (folder / "part").write_text("part")
    time.sleep(600)
""",
    "a child": """
subprocess.run(["sh", "-c", "trap '' INT TERM; sleep 600 & wait"])
""",
    "workers": """
ignore = signal.signal, (signal.SIGINT, signal.SIG_IGN)
context = multiprocessing.get_context("forkserver")
with concurrent.futures.ProcessPoolExecutor(2, context, *ignore) as pool:
    list(pool.map(wait, [Path("1"), Path("2")]))
""",
}
SCRIPT = """
import concurrent.futures, hashlib, multiprocessing, os, signal, subprocess, sys, time
from pathlib import Path
from mufin import interrupts, runtime
from mufin.artifacts.publication import publish

def wait(mark):
    mark.touch()
    time.sleep(600)

def main():
    print("ready", flush=True)
{body}

if __name__ == "__main__":
    runtime.run(main)
"""


@contextlib.contextmanager
def running(*words: str, folder: Path, **changes) -> Iterator[subprocess.Popen]:
    """A process in a session of its own, as on a terminal; killed with all its children at last."""
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=environment(PYTHONPATH=str(ROOT), **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@contextlib.contextmanager
def script(folder: Path, body: str) -> Iterator[subprocess.Popen]:
    """A script whose `main` has come to `body`."""
    path = folder / "work.py"
    path.write_text(SCRIPT.format(body="\n".join(f"    {line}" for line in body.splitlines())))
    with running(str(path), folder=folder) as process:
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        yield process


def until(true: Callable[[], object], process: subprocess.Popen, seconds: float = 120) -> None:
    """Wait until `true()`, while the process runs."""
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)


def group(process: subprocess.Popen) -> list[int]:
    """The living processes of its session."""
    found = []
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(other.pid) == process.pid and other.status() != psutil.STATUS_ZOMBIE:
                found.append(other.pid)
    return found


def check_ended(process: subprocess.Popen, number: signal.Signals, what: str) -> None:
    """It ends soon, says one sentence, and leaves no process of its session."""
    start = time.monotonic()
    out, said = process.communicate(timeout=60)
    assert time.monotonic() - start < SOON
    assert process.returncode == 128 + number
    sentence = f"error: {what} was interrupted ({number.name}); run the same command to continue\n"
    assert (out, said) == ("", sentence)
    while group(process):  # the kernel may still be ending one that was killed
        assert time.monotonic() - start < SOON


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", BUSY)
def test_a_signal_ends_a_stage_that_is_busy(tmp_path, busy, number):
    with script(tmp_path, BUSY[busy]) as process:
        if busy == "a child":
            until(lambda: len(group(process)) == 3, process)
        elif busy == "workers":
            until(lambda: Path(tmp_path / "1").exists() and Path(tmp_path / "2").exists(), process)
        elif busy == "a publication":
            until(lambda: list(tmp_path.glob("data/.raw*/raw/part")), process)
        os.killpg(process.pid, number)  # as a terminal sends Ctrl-C
        check_ended(process, number, "work")
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_a_second_signal_does_not_wait_for_the_way_out(tmp_path):
    body = """interrupts.GRACE = 600
try:
    print("inside", flush=True)
    time.sleep(600)
finally:
    print("leaving", flush=True)
    while True:
        time.sleep(600)
"""
    with script(tmp_path, body) as process:
        assert process.stdout.readline() == "inside\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "leaving\n"
        process.send_signal(signal.SIGINT)
        check_ended(process, signal.SIGINT, "work")


def test_a_forked_child_takes_its_signal_alone(tmp_path):
    body = """if not (child := os.fork()):
    time.sleep(600)
os.kill(child, 15)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
time.sleep(2 * interrupts.GRACE)
print("alive", flush=True)
"""
    with script(tmp_path, body) as process:
        assert process.communicate(timeout=60) == ("-15\nalive\n", "")
        assert process.returncode == 0


def test_an_ignored_signal_stays_ignored(tmp_path):
    path = tmp_path / "work.py"
    path.write_text(SCRIPT.format(body="    input()"))
    words = [sys.executable, "-c", "import os, signal, sys; signal.signal(2, signal.SIG_IGN); "]
    words[-1] += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    process = subprocess.Popen(  # as a shell starts a command with & or nohup
        [*words, str(path)],
        env=environment(PYTHONPATH=str(ROOT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate("\n", timeout=60) == ("", "") and process.returncode == 0


# Stages


def catches(process: subprocess.Popen, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def test_a_stage_ends_also_while_it_imports(tmp_path):
    with running("-m", "pipeline.pretrain", folder=tmp_path) as process:
        until(lambda: catches(process, signal.SIGTERM), process)
        process.send_signal(signal.SIGINT)
        check_ended(process, signal.SIGINT, "pretrain")


def test_the_sentence_names_a_module_that_is_not_found_yet(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "-m", "pipeline.pretrain", "-m"])
    assert interrupts._sentence(signal.SIGINT).startswith("error: pretrain was interrupted")


def test_ctrl_c_ends_a_download_from_a_silent_host(tmp_path):
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        rows = ["ASIN,title,images,also_buy"]
        rows += [f"p{n},title {n},{url}/{n}.jpg,p{(n + 1) % 100}" for n in range(100)]
        (tmp_path / "catalog.csv").write_text("\n".join(rows) + "\n")
        settings = {
            "download.source": "catalog",
            "download.location": str(tmp_path / "catalog.csv"),
            "download.private_addresses": True,
            "download.per_host": 32,
            "download.timeout": 600.0,
        }
        (tmp_path / "params.yaml").write_text(changed(ROOT / "params.yaml", settings))
        with running("-m", "pipeline.download", folder=tmp_path) as process:
            silent.settimeout(120)
            asked = [silent.accept()[0] for _ in range(8)]
            os.killpg(process.pid, signal.SIGINT)
            check_ended(process, signal.SIGINT, "download")
            assert asked


def test_sigterm_ends_training_which_then_continues(tmp_path):
    settings = QUICK | {"pretrain.epochs": 2, "encoder.modalities": ["text"]}
    with inside(tmp_path, **settings):
        run_stages(tmp_path, "download", "precompute")
        run_stages(tmp_path, "pretrain", "pretrain")
        model = tmp_path / "models/pretrain/member-0/model.safetensors"
        unbroken = model.read_bytes()
        model.unlink()
        more = {"MUFIN_CHECKPOINT_SECONDS": "0"}
        with running("-m", "pipeline.pretrain", folder=tmp_path, **more) as process:
            until(lambda: list(tmp_path.rglob("checkpoint.safetensors")), process)
            process.send_signal(signal.SIGTERM)
            check_ended(process, signal.SIGTERM, "pretrain")
        assert not model.exists()
        run_stages(tmp_path, "pretrain", "pretrain")
        assert not list(tmp_path.rglob("checkpoint.safetensors"))
    assert model.read_bytes() == unbroken
