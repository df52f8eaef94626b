"""Pictures of callers, judged by size and header before the device thread sees them."""

from __future__ import annotations

import base64
import resource

import pytest

from mufin.serving.web.images import check_picture, decoded, media_type
from mufin.serving.web.refusals import Refusal
from tests.support.fake_service import SCRIPT
from tests.support.hostile_pictures import bombs, encoded, mutated, refused, scene
from tests.support.servers import jpeg
from tests.support.web import running

MOST = 8 * 2**20


def judged(content: bytes, most: int = MOST) -> Refusal | None:
    try:
        check_picture(content, "images.0", most)
    except Refusal as refusal:
        assert refusal.field == "images.0"
        return refusal
    return None


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"])
def test_whole_pictures_pass_and_have_their_media_type(form):
    content = encoded(scene(40, 30), form)
    assert judged(content) is None
    assert media_type(content) == f"image/{form.lower()}"


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused_or_left_to_the_bounded_decoder(name):
    content, reasons = bombs()[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = judged(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    if reasons == {"too many pixels"}:
        assert found is not None and found.status == 422 and "pixels" in found.text


@pytest.mark.parametrize("reason", refused())
def test_what_is_no_picture_has_its_reason(reason):
    found = judged(refused()[reason])
    assert found is not None and found.status == 422 and reason in found.text


def test_broken_headers_raise_nothing_else():
    found = [judged(content) for _, content in mutated(300)]
    assert any(found) and not all(found)


def test_a_picture_of_too_many_bytes_is_413():
    found = judged(jpeg(), most=100)
    assert found is not None and found.status == 413 and "at most 100" in found.text


def test_base64_that_is_too_long_is_not_decoded():
    with pytest.raises(Refusal) as refusal:
        decoded("A" * 1000, "images.0", 100)
    assert refusal.value.status == 413
    assert decoded(base64.b64encode(b"a" * 100).decode(), "images.0", 100) == b"a" * 100


@pytest.mark.parametrize("text", ["A", "AAA", "AA=A", "AAAA\n", "AA AA", "é", "data:;base64", "-_"])
def test_what_is_not_base64_is_422(text):
    with pytest.raises(Refusal) as refusal:
        decoded(text, "images.0", MOST)
    assert refusal.value.status == 422


def test_bombs_over_http_never_reach_the_recommender():
    with running() as now, now.client() as client:
        for name in ("png header", "webp canvas", "gif"):
            content = bombs()[name][0]
            data = base64.b64encode(content).decode()
            for response in (
                client.post("/v1/recommend", json={"images": [{"data": data}]}),
                client.post("/v1/recommend", files=[("images", ("a.png", content))]),
                client.put("/v1/products/x", json={"images": [{"data": data}]}),
            ):
                assert response.status_code == 422 and "pixels" in response.json()["error"]
                assert response.json()["field"] == "images.0"
        assert not now.service.batches and not now.keeper.commits


def test_a_picture_is_served_so_that_no_script_in_it_runs():
    with running() as now, now.client() as client:
        good, evil = client.get("/v1/pictures/a%2Fb"), client.get("/v1/pictures/evil")
        assert good.content == jpeg(1) and good.headers["content-type"] == "image/jpeg"
        assert evil.content == SCRIPT
        assert evil.headers["content-type"] == "application/octet-stream"
        for response in (good, evil):
            assert response.headers["content-security-policy"].startswith("sandbox")
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "immutable" in response.headers["cache-control"]
        tag = {"If-None-Match": good.headers["etag"]}
        again = client.get("/v1/pictures/a%2Fb", headers=tag)
        assert again.status_code == 304 and not again.content
        missing = client.get("/v1/pictures/nope")
        assert missing.status_code == 404 and missing.json()["field"] == "key"
        assert missing.headers["cache-control"] == "no-store"
