"""Hostile settings and command lines: each ends in one short sentence, and nothing is lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mufin.cli import app
from mufin.errors import GAP, LONGEST
from mufin.params import ParamsError, load_params
from mufin.profiles import FOLDER, read_profile, text_of_profile

ROOT = Path(__file__).parents[2]
SAMPLE = read_profile("sample")
TEXT = text_of_profile("sample")
SECONDS = 20  # for a file; the slowest takes one or two
MEMORY = 300 * 2**20  # bytes of address space of a process that reads them all
N = 2**20 - 10  # bytes, just below what is read


def edited(name: str, value: object) -> bytes:
    """The sample's settings as JSON, one of them replaced; `name` is dotted."""
    content: dict = asdict(SAMPLE)
    *sections, key = name.split(".")
    part = content
    for section in sections:
        part = part[section]
    part[key] = value
    return json.dumps(content).encode("utf-8", "surrogatepass")


def in_yaml(old: str, new: str) -> bytes:
    assert old in TEXT
    return TEXT.replace(old, new, 1).encode()


def nested(depth: int) -> list:
    out: list = []
    for _ in range(depth):
        out = [out]
    return out


LAUGHS = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
)
FILES: dict[str, bytes] = {
    "nothing": b"",
    "comments alone": b"# nothing\n",
    "null": b"null",
    "a latin-1 byte": in_yaml("title: title", "title: caf@").replace(b"@", b"\xe9"),
    "UTF-16": TEXT.encode("utf-16"),
    "a NUL byte": in_yaml("title: title", "title: a\0b"),
    "an escape character": in_yaml("title: title", "title: \x1b[31m"),
    "bytes of a program": bytes(range(256)) * 100,
    "a tab": b"finetune:\n\tgamma: 1\n",
    "5,000 digits": in_yaml("members: 1", f"members: {'1' * 5000}"),
    "5,000 digits in JSON": b'{"members": ' + b"1" * 5000 + b"}",
    "a million digits": b"members: " + b"1" * N,
    "a million hex digits": in_yaml("members: 1", "members: 0x" + "f" * 1_000_000),
    "3,000 brackets": b"[" * 3000,
    "3,000 braces in JSON": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    "3,000 dashes": b"- " * 3000,
    "a million brackets": b"[" * N,
    "a million question marks": b"? " * (N // 2),
    "a laughing bomb": LAUGHS.encode(),
    "one alias": in_yaml("title: title", "title: &a title").replace(
        b"images: images", b"images: *a"
    ),
    "a list of itself": b"&a [*a]",
    "a merge key": b"x: &x {a: 1}\ny:\n  <<: *x\n",
    "a Python object": b"!!python/object/apply:os.system ['touch hacked']",
    "a tag of one's own": in_yaml("members: 1", "members: !x 1"),
    "bytes": in_yaml("title: title", "title: !!binary aGk="),
    "YAML 1.1": b"%YAML 1.1\n---\nmembers: 1:1:1:1:1\n",
    "two documents": TEXT.encode() + b"---\nmembers: 2\n",
    "a million documents": b"--- 1\n" * (N // 6),
    "a key twice": in_yaml("members: 1", "members: 1\nmembers: 2"),
    "a key twice in JSON": b'{"seed": 1, "seed": 2}',
    "the 99th month": in_yaml("title: title", "title: 2001-99-99"),
    "a date": in_yaml("title: title", "title: 2001-01-01"),
    "a million values": b"[" + b"1," * (N // 2 - 1) + b"]",
    "a million empty lines": b"\n" * N,
    "a million quotes": b"'a'" * (N // 3),
    "a million anchors": b"&a " * (N // 3),
    "a long key": b"x" * N + b": 1",
    "a quoted long key": b'"' + b"x" * 100_000 + b'": 1',
    "a long key of control characters": b'{"' + b"\\u202e" * 50_000 + b'": 1}',
    "a list as a key": b"? [a]\n: 1",
    "null as a key": b"null: 1",
    "a mapping as a key": b"? {a: 1}\n: 1",
    "a text": b"gamma",
    "a list": b"[1, 2]",
    "a number": b"1e999",
    "more than a megabyte": TEXT.encode() + b"#" * 2**20,
}
SMALL = [name for name in FILES if len(FILES[name]) < 200_000]  # the others take a second each
NUMBERS = {
    "1e999": float("inf"),
    "-1e999": float("-inf"),
    ".nan": float("nan"),
    "10^400": 10**400,
    "-10^400": -(10**400),
    "10^18": 10**18,
    "true": True,
    "null": None,
    "a text": "1",
    "a list": [1],
    "a section": {"a": 1},
}
PLACES = (  # a float, an int, an int or null, an int or `all`; lists; options at any depth
    "finetune.lr",
    "finetune.gamma",
    "finetune.epochs",
    "seed",
    "encoder.image.trainable_blocks",
    "download.sample.products",
    "evaluate.propensity.a",
)
VALUES: dict[str, bytes] = {
    **{
        f"{place} {name}": edited(place, value)
        for place in PLACES
        for name, value in NUMBERS.items()
        if not (name == "10^18" and place.endswith(("lr", "propensity.a")))
    },
    **{
        f"{place} with {name}": edited(place, wrap(NUMBERS[name]))
        for name in ("1e999", ".nan", "10^400", "10^18")
        for place, wrap in {
            "evaluate.betas": lambda v: [0.5, v],
            "evaluate.frequency_weights": lambda v: [v],
            "encoder.image.options": lambda v: {"depth": v},
            "encoder.text.options": lambda v: {"a": [{"b": v}]},
        }.items()
        if not (place == "evaluate.frequency_weights" and name == "10^18")
    },
    "max_products 10^400": edited("curate.max_products", 10**400),
    "modalities null": edited("encoder.modalities", None),
    "modalities a bomb": edited("encoder.modalities", [nested(500)]),
    "location of numbers": edited("download.location", [1, 2]),
    "location a long text": edited("download.source", "x" * 1_000_000),
    "location with a NUL": edited("download.location", "a\0b"),
    "location half a character": edited("download.location", "\ud800"),
    "a title of control characters": edited("download.source", "\x1b[2J\u202e\u2028\x9b\x7f" * 99),
    "a name of control characters": edited("encoder.image.kind", "\x00\r\n\t"),
    "options too deep": edited("encoder.image.options", {"a": nested(500)}),
    "options too deep for Python": edited("seed", 1)[:-1] + b', "x": ' + b"[" * 100_000,
    "options a list": edited("encoder.image.options", [1]),
    "options with a NUL name": edited("encoder.image.options", {"\0": 1}),
    "options with a number as name": in_yaml("hidden_size: 96", "1: 48"),
    "options with a date": in_yaml("hidden_size: 96", "hidden_size: 2001-01-01"),
    "a section a text": edited("finetune", "x" * 100_000),
    "a section null": edited("download.columns", None),
}


def one_sentence(done: Result) -> str:
    """The sentence of a command that refused."""
    assert not isinstance(done.exception, Exception), done.exception
    assert done.exit_code == 1 and done.stdout == "", done.output
    said = done.stderr.removeprefix("error: ").removesuffix("\n")
    assert 10 < len(said) <= LONGEST and said.isprintable(), done.stderr
    return said


@pytest.mark.parametrize("name", [*FILES, *VALUES])
def test_a_hostile_settings_file_is_refused_in_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = FILES[name] if name in FILES else VALUES[name]
    Path("params.yaml").write_bytes(content)
    start = time.monotonic()
    said = one_sentence(CliRunner().invoke(app, ["check"]))
    assert time.monotonic() - start < SECONDS
    assert GAP not in said  # it was short before the last guard, so its remedy is whole
    assert os.listdir() == ["params.yaml"] and Path("params.yaml").read_bytes() == content


@pytest.mark.parametrize("name", SMALL)
def test_use_keeps_a_copy_of_what_it_replaces(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes(FILES[name])
    done = CliRunner().invoke(app, ["use", "sample"])
    assert done.exit_code == 0, done.output
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert load_params() == SAMPLE
    assert not FILES[name] or Path("params.yaml.bak").read_bytes() == FILES[name]


def test_no_file_takes_more_than_a_little_memory(tmp_path):
    """All of them in a process that may not have more."""
    for number, content in enumerate([*FILES.values(), *VALUES.values()]):
        (tmp_path / f"{number}.yaml").write_bytes(content)
    script = (
        "import pathlib, resource, sys\n"
        "from mufin.params import ParamsError, load_params\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try: load_params(path)\n"
        "    except ParamsError: print(path.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(FILES) + len(VALUES)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**42)  # a hole: it takes no space on the disk


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


THINGS: dict[str, Callable[[Path], None]] = {
    "folder": Path.mkdir,
    "fifo": fifo,
    "socket": listening,
    "circle of links": circle,
    "endless device": device,
    "huge file": huge,
}


@pytest.mark.parametrize("thing", THINGS)
def test_what_is_no_file_of_settings_is_refused_and_stays(thing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    THINGS[thing](Path("params.yaml"))
    before = os.lstat("params.yaml")
    THINGS[thing](Path("out"))
    commands = [["check"], ["use", "sample"], ["use", "sample", "--force"]]
    commands += [["recommend", "x", "--out", "out", *force] for force in ([], ["--force"])]
    commands += [["showcase", "--out", "out"]]
    for words in commands:
        one_sentence(CliRunner().invoke(app, words))
    one_sentence(CliRunner().invoke(app, ["recommend", "--image", "params.yaml"]))
    assert os.lstat("params.yaml").st_ino == before.st_ino
    assert sorted(os.listdir()) == ["out", "params.yaml"]


LONG = "x" * 5000
LINES: dict[str, list[str]] = {
    "an unknown profile": ["use", "nobody"],
    "no profile": ["use", ""],
    "a path as a profile": ["use", "../params/sample"],
    "a profile of control characters": ["use", "\x1b[2J\u202e\n"],
    "a long profile": ["use", "s" * 100_000],
    "a profile of half a character": ["use", "\udcff"],
    "settings in a file": ["use", "sample", "--params", "file/params.yaml"],
    "settings in a folder below a file": ["use", "sample", "--params", "file/a/b.yaml"],
    "settings in /proc": ["use", "sample", "--params", "/proc/params.yaml"],
    "settings in /dev/null": ["use", "sample", "--params", "/dev/null"],
    "settings in the folder itself": ["use", "sample", "--params", "."],
    "settings of no name": ["use", "sample", "--params", ""],
    "settings of a long name": ["use", "sample", "--params", LONG],
    "settings of a name of 250 bytes": ["use", "sample", "--params", "y" * 250],
    "settings over notes": ["use", "sample", "--params", "notes"],
    "check of no file": ["check", "--params", "nothing"],
    "check of a file below a file": ["check", "--params", "file/params.yaml"],
    "check of a long name": ["check", "--params", LONG],
    "check of control characters": ["check", "--params", "\x1b[2J\u202e.yaml"],
    "check of a device": ["check", "--params", "/dev/zero"],
    "check of memory": ["check", "--params", "/proc/self/mem"],
    "no product": ["recommend"],
    "a title that is not UTF-8": ["recommend", "--title", "\udcff"],
    "answers over notes": ["recommend", "x", "--out", "notes"],
    "answers in a file": ["recommend", "x", "--out", "file/a"],
    "answers in /proc": ["recommend", "x", "--out", "/proc/a"],
    "answers in /dev/full": ["recommend", "x", "--out", "/dev/full"],
    "answers of a long name": ["recommend", "x", "--out", LONG],
    "answers in this folder": ["recommend", "x", "--out", ""],
    "an image that is not there": ["recommend", "--image", "nothing"],
    "an image of a long name": ["recommend", "--image", LONG],
    "an image without end": ["recommend", "--image", "/dev/zero"],
    "a picture over notes": ["showcase", "--out", "notes"],
    "a picture in a file": ["showcase", "--out", "file/a.png"],
    "a picture of nothing": ["showcase", "--out", "a.png", "--home", "nothing"],
    "artifacts of nothing": ["verify", "--home", "nothing"],
    "artifacts of a file": ["verify", "--home", "file"],
    "a seal on this folder": ["seal", "."],
    "a seal on nothing": ["seal", LONG],
}


@pytest.mark.parametrize("name", LINES)
def test_a_hostile_command_line_is_refused_in_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"params.yaml": TEXT, "notes": "# my notes\n", "file": "text"}
    for path, text in files.items():
        Path(path).write_text(text)
    one_sentence(CliRunner().invoke(app, LINES[name]))
    assert {path: Path(path).read_text() for path in os.listdir()} == files


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["use"],
        ["recommend", "--k", "1e9"],
        ["recommend", "--k", "9" * 5000],
        ["check", "x"],
        ["check", "--params", "a\0b"],
    ],
    ids=lambda words: " ".join(words)[:20],
)
def test_a_wrong_usage_ends_with_code_2(words):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "Traceback" not in done.output


@pytest.mark.parametrize("name", SMALL)
def test_a_hostile_profile_is_refused_in_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mufin.profiles.FOLDER", tmp_path / "params")
    (tmp_path / "params").mkdir()
    (tmp_path / "params/sample.yaml").write_bytes((FOLDER / "sample.yaml").read_bytes())
    (tmp_path / "params/mine.yaml").write_bytes(FILES[name])
    if name in ("nothing", "comments alone", "null"):
        assert read_profile("mine", tmp_path / "params") == SAMPLE  # it differs in nothing
        return
    with pytest.raises(ParamsError) as error:
        read_profile("mine", tmp_path / "params")
    assert len(str(error.value)) <= LONGEST + len(str(tmp_path))
