"""100 hostile pictures: each is decoded or counted by its reason, within memory and time."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mufin.corpus import decoding
from mufin.corpus.decoding import Decoder, decoded
from mufin.corpus.image_store import ImageWriter, key_of
from mufin.corpus.outcomes import Outcomes
from mufin.corpus.pixels import MEMORY
from mufin.errors import MufinError
from mufin.serving import new_products
from tests.support.hostile_pictures import bombs, mutated, refused
from tests.support.servers import jpeg

SIZE = 128
REASONS = {
    *("", "corrupt or truncated", "too many pixels", "no pixels", "too much memory"),
    *("took too long", "the decoder crashed", "not a picture"),
}
CRASHES = [b"\xff\xd8\xff" + what for what in (b"SEGV", b"ABRT", b"KILL", b"LOOP")]
# A process in which these pictures do what a fault in a decoder would let them do
PROGRAM = f"""
import os, signal
from mufin.corpus import decode_worker, pixels
real = pixels.decode
def decode(content, size, notes):
    if content in {CRASHES!r}:
        while content.endswith(b"LOOP"):
            pass
        os.kill(os.getpid(), getattr(signal, "SIG" + content[3:].decode()))
    return real(content, size, notes)
pixels.decode = decode
decode_worker.SECONDS = 3
decode_worker.main()
"""


@pytest.fixture
def peaks(monkeypatch) -> list[int]:
    """Bytes: the most that was resident in the decoding process, read after each answer."""
    peaks, ask = [], Decoder._answer

    def asked(self: Decoder, content: bytes, size: int) -> tuple[np.ndarray | str, set[str]]:
        answer = ask(self, content, size)
        if self.process is not None:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            peaks.append(int(status.partition("VmHWM:")[2].split()[0]) << 10)
        return answer

    monkeypatch.setattr(Decoder, "_answer", asked)
    return peaks


def hostile() -> list[tuple[str, bytes, set[str]]]:
    """(name, bytes, the reasons that are right, '' for pixels) of 100 pictures."""
    named = [(f"refused: {reason}", content, {reason}) for reason, content in refused().items()]
    named += [(name, content, reasons) for name, (content, reasons) in bombs().items()]
    ends = ({"the decoder crashed"},) * 3 + ({"took too long"},)
    named += [(str(content[3:]), content, reasons) for content, reasons in zip(CRASHES, ends)]
    some = mutated(100 - len(named))
    return named + [(f"mutated {form}", content, REASONS) for form, content in some]


def test_100_hostile_pictures_end_as_pixels_or_reasons(tmp_path, monkeypatch, peaks):
    monkeypatch.setattr(decoding, "COMMAND", [sys.executable, "-c", PROGRAM])
    attacks, good, writer = hostile(), [jpeg(number) for number in range(25)], ImageWriter(tmp_path)
    assert len(attacks) == 100
    of_attack = {}
    for number, (name, content, _) in enumerate(attacks):
        of_attack[writer.add(content)] = name
        if number % 4 == 0:
            writer.add(good[number // 4])
    keys = set(of_attack) | {key_of(content) for content in good}
    assert len(of_attack) == 100 and len(writer.keys) == len(keys) == 125
    writer.close()
    outcomes = Outcomes()
    start = time.monotonic()
    found = dict(decoded(tmp_path, np.array(sorted(keys)), SIZE, 2, outcomes))
    drops = outcomes.dropped
    assert time.monotonic() - start < 120
    assert len(found) + sum(drops.values()) == 125
    assert all(pixels.shape == (SIZE, SIZE, 3) for pixels in found.values())
    assert set(found) - set(of_attack) == keys - set(of_attack)  # all of the good ones
    assert set(drops) <= REASONS.union(*(reasons for _, _, reasons in attacks))
    assert drops["the decoder crashed"] >= 3 and drops["took too long"] >= 1
    # at most the bound and what is mapped of Python and libraries; one picture takes most of it
    assert MEMORY * 0.6 < max(peaks) < MEMORY + 2**26


def test_a_question_with_a_hostile_picture_is_one_sentence(monkeypatch):
    monkeypatch.setattr(decoding, "COMMAND", [sys.executable, "-c", PROGRAM])
    monkeypatch.setattr(decoding, "_spare", [spare := Decoder()])
    webp, _ = bombs()["webp of 34 bytes"]
    for content, reason in ((CRASHES[0], "the decoder crashed"), (webp, "too many pixels")):
        with pytest.raises(MufinError, match=rf"a picture cannot be read \({reason}\); give"):
            new_products.read_pixels([jpeg(), content], SIZE)
    spare.close()


def test_each_family_has_the_reason_it_should():
    decoder, wrong, counts = Decoder(), [], Counter()
    families = {reason: (content, {reason}) for reason, content in refused().items()} | bombs()
    for name, (content, right) in families.items():
        answer = decoder.decode(content, SIZE)
        reason = answer if isinstance(answer, str) else ""
        counts[reason] += 1
        if reason not in right:
            wrong.append((name, reason))
    decoder.close()
    assert not wrong, wrong
    assert counts["too many pixels"] >= 8 and counts[""] >= 5
