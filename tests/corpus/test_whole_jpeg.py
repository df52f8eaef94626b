"""JPEGs by libjpeg-turbo's own interface: Pillow's pixels, and what Pillow has to decide."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from simplejpeg import encode_jpeg

from mufin.corpus import pixels
from mufin.corpus.pixels import decode
from mufin.corpus.whole_jpeg import whole
from tests.support.hostile_pictures import encoded, scene


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def by_pillow(content: bytes, size: int, notes: set[str]) -> np.ndarray | str:
    """What `decode` gives where Pillow decodes all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "whole", lambda *_: None)
        return decode(content, size, notes)


OPTIONS = st.fixed_dictionaries(
    {
        "quality": st.integers(1, 100),
        "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
        "progressive": st.booleans(),
        "optimize": st.booleans(),
        "restart_marker_blocks": st.integers(0, 3),
        "keep_rgb": st.booleans(),
    }
)


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["RGB", "L"]), OPTIONS)
def test_pixels_are_those_of_pillow(width, height, mode, options):
    if options["keep_rgb"]:
        options = options | {"subsampling": "4:4:4"}
    content = encoded(scene(width, height).convert(mode), "JPEG", **options)
    ours = whole(content, opened(content))
    assert ours is not None and ours.size == (width, height)
    assert np.array_equal(np.asarray(ours)[..., :3], np.asarray(opened(content).convert("RGB")))


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_rare_subsamplings_give_the_pixels_of_pillow(subsampling):
    for width, height in ((500, 375), (33, 65), (7, 1)):
        pixels_of_scene = np.asarray(scene(width, height))
        content = encode_jpeg(pixels_of_scene, colorsubsampling=subsampling)
        ours = whole(content, opened(content))
        assert ours is not None
        assert np.array_equal(np.asarray(ours)[..., :3], np.asarray(opened(content)))


def test_a_turned_picture_is_left_to_pillow():
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(scene(40, 30), "JPEG", exif=exif)
        assert (whole(content, opened(content)) is None) == (2 <= orientation <= 8)


def test_cmyk_and_broken_exif_are_left_to_pillow(monkeypatch):
    content = encoded(scene(40, 30).convert("CMYK"), "JPEG")
    assert whole(content, opened(content)) is None

    def fails(*_):
        raise SyntaxError("broken")

    content = encoded(scene(40, 30), "JPEG")
    assert whole(content, opened(content)) is not None
    monkeypatch.setattr(Image.Image, "getexif", fails)
    assert whole(content, opened(content)) is None


def test_a_cut_file_is_left_to_pillow():
    content = encoded(scene(200, 150), "JPEG")
    for length in (len(content) - 1, len(content) - 2, len(content) // 2):
        assert whole(content[:length], opened(content)) is None


def test_a_second_header_does_not_widen_the_picture():
    """The size that Pillow read bounds the memory, whatever the decoder finds."""
    small, large = (encoded(scene(side, side), "JPEG") for side in (40, 400))
    assert whole(large, opened(small)) is None
    assert whole(small, opened(large)) is None


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_broken_bytes_are_refused_as_by_pillow(options):
    content, rng = encoded(scene(60, 45), "JPEG", **options), np.random.default_rng(0)
    answers = set()
    for _ in range(300):
        broken = np.frombuffer(content, np.uint8).copy()
        end = int(rng.choice([300, len(broken)]))
        broken[rng.integers(0, end, rng.integers(1, 6))] = rng.integers(0, 256)
        found: tuple[set[str], set[str]] = (set(), set())
        ours, theirs = (
            way(broken.tobytes(), 32, notes) for way, notes in zip((decode, by_pillow), found)
        )
        assert found[0] == found[1] and type(ours) is type(theirs)
        assert np.array_equal(ours, theirs) if isinstance(ours, np.ndarray) else ours == theirs
        answers.add(ours if isinstance(ours, str) else "pixels")
    assert {"pixels", "corrupt or truncated"} <= answers
