"""Images that a catalog holds itself: kept once, found by what they are, bounded in size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mufin.corpus.image_store import key_of
from mufin.corpus.kept_images import KeptImages
from tests.support.servers import jpeg


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_images_are_kept_as_in_a_dictionary(tmp_path_factory, contents):
    kept = KeptImages(tmp_path_factory.mktemp("kept") / "file", 30_000)
    pictures = [jpeg(number) + content for number, content in enumerate(contents)] * 2
    references = [kept.keep(picture) for picture in pictures]
    assert references == [f"sha256:{key_of(picture)}" for picture in pictures]
    for reference, picture in reversed(list(zip(references, pictures))):
        assert reference in kept and kept.fetch(reference) == (picture, "")
    assert not pictures or kept.path.stat().st_size == sum(8 + len(p) for p in set(pictures))
    kept.close()


def test_an_image_beyond_the_bound_takes_no_room(tmp_path):
    kept = KeptImages(tmp_path / "file", 1000)
    reference = kept.keep(jpeg(1) + bytes(1000))
    assert kept.fetch(reference) == (b"", "too many bytes") and not kept.path.exists()
    kept.close()


def test_what_is_no_picture_has_the_reason_of_a_fetched_one(tmp_path):
    kept = KeptImages(tmp_path / "file", 1000)
    for content, reason in ((b"a title", "not a picture"), (b"%PDF-1.4", "PDF is not read")):
        assert kept.fetch(kept.keep(content)) == (b"", reason)
    kept.close()


def test_other_references_are_not_kept_images(tmp_path):
    kept = KeptImages(tmp_path / "file", 30_000)
    reference = kept.keep(jpeg(1))
    for other in ("", "sha256:", "sha256:zz", reference[:-1], reference[7:], "a.jpg"):
        assert other not in kept
    kept.close()
