"""Pictures with a colour profile, against littlecms on whole pictures and against the formula."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL._util import DeferredError

from mufin.corpus import colours, pixels
from mufin.corpus.pixels import CONVERTED, PROFILE_IGNORED, decode
from tests.support.hostile_pictures import encoded, scene
from tests.support.profiles import (
    ADOBE,
    P3,
    SRGB,
    adobe_curve,
    cmyk_profile,
    grey_profile,
    rgb_profile,
    srgb_curve,
    srgb_stored,
)

ADOBE_RGB, DISPLAY_P3 = rgb_profile(ADOBE, adobe_curve), rgb_profile(P3, srgb_curve)
DARK_GREY, PRESS = grey_profile(lambda stored: stored**3), cmyk_profile()
SIDE = 64


@pytest.fixture(autouse=True)
def no_transform_of_another_test():
    colours._transform.cache_clear()


def every_colour() -> Image.Image:
    """64 x 64 colours from all over the cube, in no order."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))


def managed(image: Image.Image, profile: bytes) -> np.ndarray:
    """The whole picture in sRGB by one call of littlecms."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    done = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return np.asarray(done, int)


def decoded(image: Image.Image, form: str, profile: bytes, **options) -> tuple[np.ndarray, set]:
    notes: set[str] = set()
    answer = decode(encoded(image, form, icc_profile=profile, **options), SIDE, notes)
    assert isinstance(answer, np.ndarray), answer
    return answer.astype(int), notes


CASES = {
    "Adobe RGB": ("PNG", "RGB", ADOBE_RGB, 33),
    "Display P3": ("WEBP", "RGB", DISPLAY_P3, 38),
    "grey": ("PNG", "L", DARK_GREY, 25),
    "grey TIFF": ("TIFF", "L", DARK_GREY, 25),
    "CMYK": ("TIFF", "CMYK", PRESS, 100),
}


@pytest.mark.parametrize("case", CASES)
def test_a_profile_is_applied_as_by_littlecms(case):
    form, mode, profile, unmanaged = CASES[case]
    image, options = every_colour().convert(mode), {"lossless": True} if form == "WEBP" else {}
    ours, notes = decoded(image, form, profile, **options)
    whole = managed(image, profile)
    assert np.abs(ours - whole).max() == 0 and notes == {CONVERTED}
    plain = decode(encoded(image, form, **options), SIDE).astype(int)
    assert np.abs(plain - whole).max() > unmanaged  # what it would be without


@pytest.mark.parametrize(
    "primaries, curve, profile", [(ADOBE, adobe_curve, ADOBE_RGB), (P3, srgb_curve, DISPLAY_P3)]
)
def test_colours_are_those_of_the_formula(primaries, curve, profile):
    """Stored value -> light -> XYZ -> light of sRGB -> stored value, colour by colour."""
    image = every_colour()
    light = curve(np.asarray(image) / 255) @ primaries @ np.linalg.inv(SRGB)
    expected = 255 * srgb_stored(light)
    inside = ((light > 0) & (light < 1)).all(-1)  # others are clipped in more than one way
    ours, _ = decoded(image, "PNG", profile)
    assert inside.mean() > 0.4 and np.abs(ours - expected)[inside].max() < 2


@pytest.mark.parametrize("mode, profile", [("RGB", ADOBE_RGB), ("CMYK", PRESS), ("L", DARK_GREY)])
def test_a_large_jpeg_is_drafted_and_then_converted(mode, profile):
    image = scene(1000, 800).convert(mode)
    options = {"quality": 95, "icc_profile": profile}
    whole = Image.fromarray(
        managed(Image.open(io.BytesIO(encoded(image, "JPEG", **options))), profile).astype(np.uint8)
    )
    ours, notes = decoded(image, "JPEG", profile, quality=95)
    expected = decode(encoded(whole, "PNG"), SIDE).astype(int)
    assert np.abs(ours - expected).mean() < 1.5 and notes == {CONVERTED}


def test_transparency_and_palettes_keep_their_form():
    plain, profile = every_colour().quantize(200), ADOBE_RGB
    ours, _ = decoded(plain, "PNG", profile)
    assert np.array_equal(ours, managed(plain.convert("RGB"), profile))
    for mode, space, profile in (("RGBA", "RGB", ADOBE_RGB), ("LA", "L", DARK_GREY)):
        image = every_colour().convert(space).convert(mode)
        image.putalpha(Image.linear_gradient("L").resize((SIDE, SIDE)))
        alpha = np.asarray(image.getchannel("A"), float)[..., None] / 255
        ours, _ = decoded(image, "PNG", profile)
        expected = alpha * managed(every_colour().convert(space), profile) + (1 - alpha) * 255
        assert np.abs(ours - expected).max() <= 1


def test_grey_of_16_bits_is_converted(monkeypatch):
    values = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    ours, notes = decoded(Image.fromarray(values), "PNG", DARK_GREY)
    assert notes == {CONVERTED}
    shallow = Image.fromarray((values / 257).astype(np.uint8))
    assert np.abs(ours - managed(shallow, DARK_GREY)).max() <= 4  # from the steps of 8 bits


@pytest.mark.parametrize("mode", ["CMYK", "RGBA"])
def test_strips_are_converted_as_the_whole(mode, monkeypatch):
    profile = PRESS if mode == "CMYK" else ADOBE_RGB
    whole, _ = decoded(every_colour().convert(mode), "TIFF", profile)
    monkeypatch.setattr(pixels, "STRIP", SIDE * 5)
    strips, _ = decoded(every_colour().convert(mode), "TIFF", profile)
    assert np.array_equal(whole, strips)


def test_profiles_of_srgb_change_no_byte():
    image = every_colour()
    plain = decode(encoded(image, "PNG"), SIDE)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (own, rgb_profile(SRGB, srgb_curve)):
        ours, notes = decoded(image, "PNG", profile)
        assert np.array_equal(ours, plain) and notes == set()
    grey = image.convert("L")
    ours, notes = decoded(grey, "PNG", own)  # the profile of RGB, which says nothing of grey
    assert np.array_equal(ours, decode(encoded(grey, "PNG"), SIDE)) and notes == set()


@pytest.mark.parametrize(
    "mode, profile",
    [
        ("RGB", b"no profile"),
        ("RGB", ADOBE_RGB[:200]),
        ("RGB", bytes(colours.LARGEST + 1)),
        ("RGB", PRESS),
        ("RGB", DARK_GREY),
        ("L", ADOBE_RGB),
        ("CMYK", ADOBE_RGB),
        ("CMYK", PRESS[:9000]),
    ],
)
def test_a_profile_that_does_not_fit_is_ignored_and_counted(mode, profile):
    image = every_colour().convert(mode)
    ours, notes = decoded(image, "TIFF", profile)
    assert np.array_equal(ours, decode(encoded(image, "TIFF"), SIDE))
    assert notes == {PROFILE_IGNORED}


def test_a_profile_of_megabytes_is_read_in_each_format():
    large = ADOBE_RGB + np.random.default_rng(0).bytes(3 << 20)
    for form in ("PNG", "TIFF", "WEBP", "JPEG"):
        options = {"lossless": True} if form == "WEBP" else {}
        _, notes = decoded(every_colour(), form, large, **options)
        assert notes == {CONVERTED}


def test_broken_bytes_in_a_profile_give_a_picture():
    rng, image = np.random.default_rng(1), scene(8, 8)
    for number in range(300):
        mode, profile = [("RGB", ADOBE_RGB), ("CMYK", PRESS), ("L", DARK_GREY)][number % 3]
        broken = np.frombuffer(profile, np.uint8).copy()
        end = min(len(broken), int(rng.choice([128, 300, len(broken)])))
        broken[rng.integers(0, end, rng.integers(1, 9))] = rng.integers(0, 256)
        _, notes = decoded(image.convert(mode), "TIFF", broken.tobytes())
        assert notes <= {CONVERTED, PROFILE_IGNORED}


def test_pillow_without_littlecms_ignores_and_counts(monkeypatch):
    monkeypatch.setattr(ImageCms, "core", DeferredError(ImportError("not compiled")))
    ours, notes = decoded(every_colour(), "PNG", ADOBE_RGB)
    assert notes == {PROFILE_IGNORED}
    assert np.array_equal(ours, np.asarray(every_colour()))


def test_profiles_are_read_once(monkeypatch):
    for _ in range(5):
        decoded(every_colour(), "PNG", ADOBE_RGB)
        decoded(every_colour().convert("CMYK"), "TIFF", PRESS)
    assert colours._transform.cache_info().misses == 2
