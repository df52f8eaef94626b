"""Pictures decoded in processes: as a loop would, whatever a picture does to its decoder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from mufin.code import ROOT
from mufin.corpus import decode_worker, decoding
from mufin.corpus.decoding import Decoder, decode_each, decoded
from mufin.corpus.image_store import ImageWriter
from mufin.corpus.outcomes import Outcomes
from mufin.corpus.pixels import MEMORY, decode
from mufin.errors import MufinError
from tests.support.hostile_pictures import (
    bmp,
    canvas_webp,
    deep_png,
    deflated_tiff,
    encoded,
    gif,
    many_scans,
    png_with,
    scene,
    zeros,
)
from tests.support.servers import jpeg

SIZE = 16
BROKEN = {b"no picture": "not a picture", jpeg(side=200)[:900]: "corrupt or truncated"}
BAD = b"\xff\xd8\xffBAD"  # the pictures at which the process of `worker` does something bad


@pytest.fixture
def store(tmp_path) -> tuple[Path, dict[str, bytes]]:
    """150 pictures and two that are broken, with their keys."""
    writer = ImageWriter(tmp_path)
    contents = {writer.add(content): content for content in [*map(jpeg, range(150)), *BROKEN]}
    writer.close()
    return tmp_path, contents


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    decoder = Decoder()
    yield decoder
    decoder.close()


def worker(monkeypatch, does: str, seconds: int = decode_worker.SECONDS) -> None:
    """Let decoding processes run these statements before they decode `content`."""
    program = f"""
import os, signal, time
from mufin.corpus import decode_worker, pixels
real, number = pixels.decode, 0
def decode(content, size, notes):
    global number
    number += 1
    bad = content.startswith({BAD!r})
    {does}
    return real(content, size, notes)
pixels.decode = decode
decode_worker.SECONDS = {seconds}
decode_worker.main()
"""
    monkeypatch.setattr(decoding, "COMMAND", [sys.executable, "-c", program])


def same(ours: list, contents: list[bytes]) -> bool:
    return all(np.array_equal(a, decode(content, SIZE)) for a, content in zip(ours, contents))


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_decode_as_a_loop(store, workers):
    folder, contents = store
    keys, outcomes = np.array([*contents, "f" * 32]), Outcomes()
    found = list(decoded(folder, keys, SIZE, workers, outcomes))
    expected = [(k, decode(c, SIZE)) for k, c in contents.items() if c not in BROKEN]
    assert [key for key, _ in found] == [key for key, _ in expected]
    assert all(np.array_equal(ours, slow) for (_, ours), (_, slow) in zip(found, expected))
    assert all(ours.dtype == np.uint8 and ours.flags.writeable for _, ours in found)
    assert outcomes.dropped == dict.fromkeys(BROKEN.values(), 1) | {"not in the image store": 1}
    reasons = {contents.get(key, b""): reason for reason, key in outcomes.examples.items()}
    assert reasons == BROKEN | {b"": "not in the image store"}


def test_only_the_pictures_asked_for_are_decoded(store, monkeypatch):
    folder, contents = store
    asked = list(contents)[3:90:7]
    monkeypatch.setattr(decoding, "CHUNK", 4)
    outcomes = Outcomes()
    assert [key for key, _ in decoded(folder, np.array(asked), SIZE, 1, outcomes)] == asked
    assert outcomes == Outcomes()


def test_a_few_pictures_are_decoded_in_a_process_that_stays():
    contents = [jpeg(1), b"no picture", jpeg(2)]
    first, reason, second = decode_each(contents, SIZE)
    assert same([first, second], [jpeg(1), jpeg(2)]) and reason == "not a picture"
    process = decoding._spare[0].process
    assert decode_each([], SIZE) == [] and same(decode_each([jpeg(3)], 16), [jpeg(3)])
    assert decoding._spare[0].process is process and process.poll() is None


def test_two_processes_decode_as_one_in_order():
    contents = [jpeg(number) for number in range(5)] + [b"no picture", jpeg(7)]
    one, two = decode_each(contents, SIZE), decode_each(iter(contents), SIZE, 2)
    assert len(two) == len(one) == 7 and isinstance(two[5], str) and two[5] == one[5]
    for ours, theirs in zip(two, one):
        assert np.array_equal(ours, theirs)
    assert len({d.process.pid for d in decoding._spare[:2]}) == 2
    assert decode_each(contents[:1], SIZE, 2)[0].shape == (SIZE, SIZE, 3)


def test_spare_processes_are_few(monkeypatch):
    monkeypatch.setattr(decoding, "_spare", spare := [])
    monkeypatch.setattr(decoding, "MOST_SPARE", 2)
    assert all(isinstance(p, np.ndarray) for p in decode_each([jpeg(1)] * 9, SIZE, 64))
    assert len(spare) == 2
    for decoder in spare:
        decoder.close()


def test_what_was_mended_is_counted_with_its_first_picture(tmp_path):
    writer = ImageWriter(tmp_path)
    contents = [jpeg(1), jpeg(2)[:-1], jpeg(3)[:-2], png_with(b"eXIf", b"no EXIF")]
    keys = [writer.add(content) for content in contents]
    writer.close()
    outcomes = Outcomes()
    assert len(list(decoded(tmp_path, np.array(keys), SIZE, 2, outcomes))) == 4
    assert outcomes.dropped == {}
    assert outcomes.noted == {"without end marker": 2, "broken EXIF": 1}
    assert outcomes.examples == {"without end marker": keys[1], "broken EXIF": keys[3]}


@pytest.mark.parametrize(
    "does",
    [
        "bad and os.kill(os.getpid(), signal.SIGSEGV)",
        "bad and os.kill(os.getpid(), signal.SIGKILL)",
        "bad and os._exit(0)",
        "bad and 1 / 0",
    ],
    ids=["segfault", "out-of-memory killer", "exit", "exception"],
)
def test_a_crash_costs_one_picture(tmp_path, monkeypatch, does):
    worker(monkeypatch, does)
    writer = ImageWriter(tmp_path)
    good = [jpeg(number) for number in range(40)]
    keys = np.array([writer.add(content) for content in [*good[:20], BAD, *good[20:], BAD + b"2"]])
    writer.close()
    outcomes = Outcomes()
    found = [pixels for _, pixels in decoded(tmp_path, keys, SIZE, 2, outcomes)]
    assert len(found) == 40 and same(found, good)
    assert outcomes.dropped == {"the decoder crashed": 2}


def test_a_picture_does_not_answer_for_earlier_ones(monkeypatch, decoder):
    worker(monkeypatch, "number == 3 and os.kill(os.getpid(), signal.SIGSEGV)")
    contents = [jpeg(number) for number in range(7)]
    assert same([decoder.decode(content, SIZE) for content in contents], contents)
    worker(monkeypatch, "kept = globals().setdefault('kept', []); kept.append(bytes(300 << 20))")
    decoder.close()
    assert same([decoder.decode(content, SIZE) for content in contents], contents)


def test_a_picture_that_takes_too_long_is_dropped(monkeypatch, decoder):
    worker(monkeypatch, "while bad: pass", seconds=1)
    assert same([decoder.decode(jpeg(1), SIZE)], [jpeg(1)])
    assert decoder.decode(BAD, SIZE) == "took too long"
    assert same([decoder.decode(jpeg(2), SIZE)], [jpeg(2)])


def test_time_is_counted_per_picture(monkeypatch, decoder):
    worker(
        monkeypatch, "end = time.process_time() + 0.5\n    while time.process_time() < end: pass"
    )
    answers = [decoder.decode(jpeg(number), SIZE) for number in range(6)]
    assert all(isinstance(answer, np.ndarray) for answer in answers)


def test_a_process_that_sleeps_is_ended(monkeypatch, decoder):
    worker(monkeypatch, "bad and time.sleep(1000)")
    decoder.decode(jpeg(1), SIZE)
    decoder.connection.settimeout(0.3)
    process = decoder.process
    assert decoder.decode(BAD, SIZE) == "took too long" and process.poll() is not None


def test_an_interrupted_answer_is_not_given_to_the_next_picture(monkeypatch, decoder):
    def interrupted(*_):
        raise KeyboardInterrupt

    decoder.decode(jpeg(1), SIZE)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(decoding, "_received", interrupted)
        decoder.decode(jpeg(2), SIZE)
    assert same([decoder.decode(jpeg(3), SIZE)], [jpeg(3)])


def test_scans_without_end_take_too_long(monkeypatch, decoder):
    worker(monkeypatch, "pass", seconds=1)
    content = many_scans(Image.new("RGB", (3000, 3000)), 40_000)
    assert len(content) < 2**20
    assert decoder.decode(content, SIZE) == "took too long"


# What a process may take when the estimates from the header know nothing

BLIND = "pixels._cost = lambda image: 0; pixels.WHOLE_FRAMES = {}"


def highest_memory(process: subprocess.Popen) -> int:
    """Bytes: the most that was resident in this process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize(
    "content",
    [
        deep_png(25000, 25000),
        gif(65535, 65535),
        bmp(60000, 60000, 1, b"\0\2\xff\xff" * 50_000),
        deflated_tiff(40000, 40000, zeros(2**27)),
        jpeg() + bytes(MEMORY),
    ],
    ids=["PNG", "GIF", "BMP", "TIFF", "long file"],
)
def test_the_memory_of_a_process_is_bound(monkeypatch, decoder, content):
    worker(monkeypatch, BLIND)
    decoder.decode(jpeg(1), SIZE)
    before, seen, close = highest_memory(decoder.process), [], decoder.close

    def watched() -> int:
        if decoder.process is not None and decoder.process.poll() is None:
            seen.append(highest_memory(decoder.process))
        return close()

    monkeypatch.setattr(decoder, "close", watched)
    assert decoder.decode(content, SIZE) == "too much memory"
    assert all(peak < MEMORY + before for peak in seen)
    assert same([decoder.decode(jpeg(2), SIZE)], [jpeg(2)])


def test_memory_that_a_codec_does_not_get_is_a_reason_too(monkeypatch, decoder):
    worker(monkeypatch, BLIND)
    assert isinstance(decoder.decode(canvas_webp(16384, 16384), SIZE), str)


@pytest.mark.parametrize(
    "make",
    [
        lambda: encoded(Image.new("RGB", (12000, 9000)), "JPEG"),
        lambda: encoded(Image.new("RGB", (8660, 5780)), "PNG", compress_level=1),
        lambda: encoded(Image.new("RGBA", (6000, 4000)), "PNG", compress_level=1),
        lambda: deep_png(4096, 4096),
        lambda: encoded(Image.new("RGB", (6000, 4000)), "WEBP", method=0),
    ],
    ids=["108 MP JPEG", "50 MP PNG", "24 MP RGBA", "16 MP of 16 bits", "24 MP WebP"],
)
def test_large_pictures_of_cameras_are_decoded(decoder, make):
    assert isinstance(decoder.decode(make(), 64), np.ndarray)


# Start and end of the processes


def test_a_process_imports_what_decoding_needs_alone():
    program = "import sys, mufin.corpus.decode_worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT, text=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {"PIL", "numpy"} <= loaded
    assert not loaded & {
        "torch",
        "pyarrow",
        "polars",
        "scipy",
        "transformers",
        "pandas",
        "requests",
    }
    assert "PIL.EpsImagePlugin" not in done.stdout.split()


def test_a_process_that_cannot_start_is_an_error_not_a_drop(monkeypatch, decoder):
    monkeypatch.setattr(decoding, "COMMAND", [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(MufinError, match=r"did not start \(exit code 3\)"):
        decoder.decode(jpeg(), SIZE)


def test_the_command_runs_outside_of_the_project(monkeypatch, tmp_path, decoder):
    monkeypatch.chdir(tmp_path)
    assert same([decoder.decode(jpeg(), SIZE)], [jpeg()])


def test_processes_end_with_the_generator(store, monkeypatch):
    folder, contents = store
    monkeypatch.setattr(decoding, "CHUNK", 4)
    worker(monkeypatch, "number > 4 and time.sleep(1000)")
    before, start = set(psutil.Process().children()), time.monotonic()
    with closing(decoded(folder, np.array([*contents]), SIZE, 2, Outcomes())) as pictures:
        next(pictures)
        assert len(set(psutil.Process().children()) - before) == 2
    assert not set(psutil.Process().children()) - before
    assert time.monotonic() - start < 30


def test_a_killed_parent_leaves_no_process():
    program = "import mufin.corpus.decoding as d; d.decode_each([b'GIF89a'], 8);"
    program += "print(d._spare[0].process.pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as parent:
        process = psutil.Process(int(parent.stdout.readline()))
        assert "decode_worker" in " ".join(process.cmdline())
        parent.kill()
        process.wait(30)


def test_no_core_is_written_and_no_time_is_left_over():
    """The limits that a process sets itself, read from the kernel."""
    decoder = Decoder()
    decoder.decode(jpeg(), SIZE)
    limits = Path(f"/proc/{decoder.process.pid}/limits").read_text().splitlines()
    values = {line[:26].strip(): line[26:].split()[:2] for line in limits}
    decoder.close()
    assert values["Max data size"] == [str(MEMORY)] * 2
    assert values["Max core file size"] == ["0", "0"]
    assert 0 < int(values["Max cpu time"][0]) <= decode_worker.SECONDS + 5


def test_noise_of_decoders_is_not_printed(capfd, decoder):
    content = encoded(scene(40, 30), "TIFF", compression="tiff_lzw")
    assert isinstance(decoder.decode(content[:-40], SIZE), str)
    broken = bytearray(content)
    broken[40:60] = os.urandom(20)
    decoder.decode(bytes(broken), SIZE)
    assert capfd.readouterr() == ("", "")
