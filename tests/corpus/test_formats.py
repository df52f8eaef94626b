"""Which formats are read, by their first bytes, and that Pillow tries no other."""

from __future__ import annotations

import ast
import io

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from mufin.code import ROOT
from mufin.corpus import formats, pixels
from mufin.corpus.formats import format_of, refusal
from mufin.corpus.pixels import decode
from tests.support.hostile_pictures import encoded, mutated, refused, scene

READ = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]


@pytest.mark.parametrize("form", READ)
def test_formats_that_shops_use_are_read(form):
    content = encoded(scene(30, 20), form)
    assert format_of(content) == form and refusal(content) == ""
    assert isinstance(decode(content, 16), np.ndarray)


def test_two_jpegs_in_one_file_are_read_as_the_first():
    first = scene(300, 200)
    content = encoded(first, "MPO", save_all=True, append_images=[scene(90, 10)], quality=95)
    assert format_of(content) == "JPEG"
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
        assert image.format == "MPO"
    ours = decode(content, 30).astype(int)
    assert np.abs(ours - decode(encoded(first, "PNG"), 30)).mean() < 4


def test_heic_is_read_where_its_package_is_installed():
    content = encoded(scene(64, 48), "HEIF", quality=95)
    assert refusal(content) == ""
    ours = decode(content, 32).astype(int)
    assert np.abs(ours - decode(encoded(scene(64, 48), "PNG"), 32)).mean() < 4


def test_heic_without_its_package_is_refused_by_name(monkeypatch):
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert refusal(content) == decode(content, 16) == "HEIC is not read without pillow-heif"


def test_the_other_brands_decide_after_a_general_one():
    for brand, name in ((b"avif", "AVIF"), (b"heic", "HEIF"), (b"abcd", "")):
        assert format_of(b"\0\0\0\x1cftypmif1\0\0\0\0mif1miaf" + brand) == name
    assert format_of(b"\0\0\0\x10ftypmif1\0\0\0\0avif") == ""  # after the end of the box


@pytest.mark.parametrize("reason, content", refused().items(), ids=[*refused()])
def test_the_reason_names_what_was_refused(reason, content):
    assert refusal(content) == reason
    assert decode(content, 16) == reason


@pytest.mark.parametrize("form", ["PPM", "TGA", "SGI", "PCX", "DDS", "ICO", "JPEG2000", "EPS"])
def test_other_formats_of_pillow_are_refused(form):
    content = encoded(scene(32, 32), form)
    assert refusal(content) == decode(content, 16) != ""
    assert "," not in refusal(content) and len(refusal(content)) < 40


def test_postscript_reaches_neither_its_plugin_nor_ghostscript(monkeypatch):
    Image.init()
    for name in ("Ghostscript", "EpsImageFile"):
        monkeypatch.setattr(EpsImagePlugin, name, lambda *_, **__: pytest.fail("reached"))
    monkeypatch.setitem(Image.OPEN, "EPS", (lambda *_: pytest.fail("reached"), None))
    content = encoded(scene(30, 20), "EPS")
    assert decode(content, 16) == "EPS is not read"
    for start in (b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"RIFF\0\0\0\0WEBP", b"BM"):
        assert isinstance(decode(start + content, 16), str)


def test_pillow_tries_the_one_format_alone(monkeypatch):
    opened, reached = Image.open, []

    def watched(file, formats):
        reached.append(formats)
        return opened(file, formats=formats)

    monkeypatch.setattr(pixels.Image, "open", watched)
    for _, content in mutated(60):
        decode(content, 16)
    assert len(reached) > 30 and all(len(names) == 1 for names in reached)
    assert {name for names in reached for name in names} <= {*READ, "HEIF"}


def test_every_open_names_its_formats():
    """In the library and the stages, by their text."""
    calls = [
        (path, node)
        for folder in ("mufin", "pipeline", "compare")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "open"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "Image"
    ]
    assert calls
    for path, call in calls:
        assert "formats" in [keyword.arg for keyword in call.keywords], (path, call.lineno)
