"""The routes over HTTP: what they answer, and one sentence for everything else."""

from __future__ import annotations

import base64
import json

import pytest

from tests.support.servers import jpeg
from tests.support.web import metric, running

BIG = jpeg(3, side=64)


@pytest.fixture(scope="module")
def served():
    with running() as now:
        yield now


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client


def asked(client, **question):
    return client.post("/v1/recommend", json=question)


def refused(response, status: int, field: str | None = None) -> str:
    """The sentence of an error, which has the right form."""
    content = response.json()
    assert response.status_code == status, content
    assert set(content) == {"error", "field"} and content["field"] == field
    assert isinstance(content["error"], str) and 5 < len(content["error"]) <= 300
    assert content["error"].isprintable()
    assert response.headers["content-type"] == "application/json"
    return content["error"]


def test_an_answer_has_all_that_a_page_shows(client):
    content = asked(client, uids=["p1"], k=2, reasons=True).json()
    assert content["model"] == "first" and content["milliseconds"] > 0
    assert [a["uid"] for a in content["answers"]] == ["p0", "p2"]
    assert content["answers"][0] == {
        "uid": "p0",
        "title": "first Mug 0",
        "score": 1.0,
        "parts": {"classifier": 1.0},
        "fallback": False,
        "why": [
            {
                "query": {"uid": None, "kind": "title", "number": 0},
                "answer": {"uid": "p1", "kind": "picture", "number": 0},
                "weight": 0.5,
                "by": "cosine",
            }
        ],
        "category": ["Kitchen", "Mugs"],
        "attributes": {"price": 0.0},
        "pictures": ["/v1/pictures/a%2Fb"],
    }


def test_a_text_alone_can_be_asked_about_and_is_quoted_in_reasons(client):
    [answer] = asked(client, texts=["a mug of stoneware"], k=1, reasons=True).json()["answers"]
    query = {"uid": None, "kind": "text", "number": 0, "text": "a mug of stoneware"}
    assert answer["why"][0]["query"] == query


def test_pictures_come_as_base64_data_url_or_file(client):
    data = base64.b64encode(BIG).decode()
    by_title = asked(client, title="Mug", k=1).json()["answers"]
    expected = asked(client, images=[{"data": data}], k=1).json()["answers"]
    assert expected != by_title  # the recommender got a picture
    for image in (data, f"data:image/jpeg;base64,{data}"):
        assert asked(client, images=[{"data": image}], k=1).json()["answers"] == expected
    form = {"files": [("images", ("a.jpg", BIG)), ("images", ("b.jpg", BIG))]}
    found = client.post("/v1/recommend", data={"query": '{"k": 1}'}, **form)
    assert found.json()["answers"] == expected
    found = client.post("/v1/recommend", files=[("images", ("a.jpg", BIG))])
    assert len(found.json()["answers"]) == 10  # without a field `query`


def test_a_query_takes_every_field_of_the_contract(client):
    question = {
        "uids": ["p1"],
        "title": "Krug, blau",
        "texts": ["Steinzeug, 0,2 l"],
        "images": [{"data": base64.b64encode(BIG).decode()}],
        "category": ["Kitchen"],
        "avoid": ["p3"],
        "k": 10,
        "candidates": ["p4"],
        "exclude": ["p5"],
        "where": {"price": {"gte": 5, "lt": 20.5}, "in_stock": True, "brand": ["A", "B"]},
        "fold": False,
        "modalities": ["text", "image", "lexical"],
        "mix": {"beta": 0.5},
        "reasons": False,
    }
    assert asked(client, **question).status_code == 200
    nulls = {"candidates": None, "where": None, "modalities": None, "mix": None}
    assert asked(client, **question | nulls).status_code == 200


@pytest.mark.parametrize(
    "question, field",
    [
        ({}, "uids"),
        ({"uids": ["nope"]}, "uids"),
        ({"uids": "p1"}, "uids"),
        ({"uids": [1]}, "uids.0"),
        ({"uids": [""]}, "uids.0"),
        ({"uids": ["a\0b"]}, "uids.0"),
        ({"uids": ["x" * 501]}, "uids.0"),
        ({"uids": ["p1"] * 101}, "uids"),
        ({"uids": ["p1"], "avoid": ["p1"] * 101}, "avoid"),
        ({"uids": ["p1"], "candidates": ["p1"] * 10_001}, "candidates"),
        ({"uids": ["p1"], "exclude": ["p1"] * 10_001}, "exclude"),
        ({"uids": ["p1"], "k": 0}, "k"),
        ({"uids": ["p1"], "k": 1001}, "k"),
        ({"uids": ["p1"], "k": 1.5}, "k"),
        ({"uids": ["p1"], "k": "1"}, "k"),
        ({"uids": ["p1"], "k": True}, "k"),
        ({"uids": ["p1"], "k": None}, "k"),
        ({"uids": ["p1"], "k": 10**400}, "k"),
        ({"uids": ["p1"], "fold": 1}, "fold"),
        ({"uids": ["p1"], "nope": 1}, "nope"),
        ({"uids": ["p1"], "modalities": ["sound"]}, "modalities.0"),
        ({"uids": ["p1"], "modalities": []}, "modalities"),
        ({"uids": ["p1"], "mix": {"beta": "a"}}, "mix.beta"),
        ({"uids": ["p1"], "mix": {"beta": 10**400}}, "mix.beta"),
        ({"uids": ["p1"], "where": {"price": None}}, "where.price"),
        ({"uids": ["p1"], "where": {"price": {"near": 1}}}, "where.price"),
        ({"uids": ["p1"], "where": {"price": {"lt": "1"}}}, "where.price"),
        ({"uids": ["p1"], "where": {"price": {}}}, "where.price"),
        ({"uids": ["p1"], "where": {"price": []}}, "where.price"),
        ({"uids": ["p1"], "where": {"price": [[1]]}}, "where.price"),
        ({"uids": ["p1"], "where": {"price": 10**400}}, "where.price"),
        ({"uids": ["p1"], "where": {"price": "x" * 501}}, "where.price"),
        ({"uids": ["p1"], "where": {str(n): 1 for n in range(51)}}, "where"),
        ({"title": "x" * 2001}, "title"),
        ({"title": 5}, "title"),
        ({"texts": "a text"}, "texts"),
        ({"texts": ["a"] * 33}, "texts"),
        ({"texts": [1]}, "texts.0"),
        ({"texts": ["x" * 20_001]}, "texts.0"),
        ({"title": "a", "category": ["a"] * 21}, "category"),
        ({"images": ["ftp://host/a.jpg"]}, "images.0"),
        ({"images": [{"data": "%%%"}]}, "images.0"),
        ({"images": [{"data": "data:image/png,abc"}]}, "images.0"),
        ({"images": [{"data": ""}]}, "images.0"),
        ({"images": [{"data": "aGVsbG8="}]}, "images.0"),
        ({"images": [{"data": base64.b64encode(BIG).decode()}] * 17}, "images"),
        ({"images": [{}]}, "images.0"),
    ],
)
def test_a_bad_question_names_its_field(client, question, field):
    response = asked(client, **question)
    if field == "images.0" and question["images"] == [{}]:
        assert response.status_code == 422
        return
    assert refused(response, 422, field)


def test_sentences_name_the_value_and_the_remedy(client):
    assert refused(asked(client, uids=["p1"], k=0), 422, "k") == (
        "k is 0; it must be greater than or equal to 1"
    )
    assert "did you mean exclude?" in refused(asked(client, uids=["p1"], exlude=[]), 422, "exlude")
    many = refused(asked(client, uids=["p1"], where={"a": "\x1b[31m" + "x" * 9999}), 422, "where.a")
    assert "\\x1b" in many


@pytest.mark.parametrize(
    "body, part",
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"k": NaN}', "NaN"),
        (b'{"k": -Infinity}', "Infinity"),
        (b'{"k": 1' + b"0" * 5000 + b"}", "not JSON"),
        (b'{"title": "\xff"}', "not UTF-8"),
        ('{"k": 1}'.encode("utf-16"), "not"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 100_000, "levels"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "levels"),
        (b'{"k": 1} x', "not JSON"),
    ],
)
def test_a_body_that_is_no_json_is_refused(client, body, part):
    kind = {"Content-Type": "application/json; charset=utf-8"}
    response = client.post("/v1/recommend", content=body, headers=kind)
    assert part in refused(response, 400)


@pytest.mark.parametrize("body", ["[]", "null", '"a"', "5", "true"])
def test_a_body_that_is_no_object_is_refused(client, body):
    for path in ("/v1/recommend", "/v1/recommend/batch", "/v1/products/batch", "/v1/model"):
        response = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert "JSON object" in refused(response, 422)
    response = client.put(
        "/v1/products/x", content=body, headers={"Content-Type": "application/json"}
    )
    assert "JSON object" in refused(response, 422)


def test_half_of_a_surrogate_pair_is_refused_everywhere(client):
    kind = {"Content-Type": "application/json"}
    for body, field in [
        (r'{"uids": ["\ud800"]}', "uids.0"),
        (r'{"title": "\ud800"}', "title"),
        (r'{"texts": ["\ud800"]}', "texts.0"),
        (r'{"uids": ["p1"], "where": {"a": "\ud800"}}', "where.a"),
        (r'{"uids": ["p1"], "where": {"a": ["\udfff"]}}', "where.a"),
    ]:
        refused(client.post("/v1/recommend", content=body, headers=kind), 422, field)
    for body in (
        r'{"uids": ["p1"], "where": {"\ud800": 1}}',
        r'{"uids": ["p1"], "mix": {"\ud800": 1}}',
        r'{"\ud800": 1}',
    ):
        assert client.post("/v1/recommend", content=body, headers=kind).status_code == 422


@pytest.mark.parametrize(
    "kind, body, status",
    [
        ("text/plain", b"{}", 415),
        ("application/x-www-form-urlencoded", b"query={}", 415),
        ("", b"{}", 415),
        ("application/octet-stream", b"x", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=a", b"", 400),
        ("multipart/form-data; boundary=a", b"--a\r\n", 400),
        ("multipart/form-data; boundary=" + "a" * 300, b"x", 400),
        ("multipart/form-data; boundary=a", b"--a\r\n\r\nx\r\n--a--\r\n", 400),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="query"\r\n\r\n{"uids":["p1"]}\r\n',
            400,
        ),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="query"\r\n\r\n{\r\n--a--\r\n',
            400,
        ),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="query"\r\n\r\n\xff\r\n--a--\r\n',
            400,
        ),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="images"\r\n\r\nx\r\n--a--\r\n',
            422,
        ),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="x"; filename="y"\r\n\r\nx\r\n--a--\r\n',
            422,
        ),
    ],
)
def test_a_body_of_another_kind_is_refused(client, kind, body, status):
    response = client.post("/v1/recommend", content=body, headers={"Content-Type": kind})
    assert response.status_code == status and set(response.json()) == {"error", "field"}


def test_a_compressed_body_is_refused(client):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    refused(client.post("/v1/recommend", content=b"\x1f\x8b", headers=headers), 415)


def test_a_batch_answers_each_question_on_its_own(client):
    queries = [{"uids": ["p1"], "k": 1}, {"uids": ["nope"]}, {}, {"images": [{"data": "aGk="}]}]
    content = client.post("/v1/recommend/batch", json={"queries": queries}).json()
    first, *errors = content["results"]
    assert first["answers"][0]["uid"] == "p0" and content["model"] == "first"
    assert [error["field"] for error in errors] == ["uids", "uids", "images.0"]
    assert all(set(error) == {"error", "field"} for error in errors)


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "queries"),
        ({"queries": []}, "queries"),
        ({"queries": [{"uids": ["p1"]}] * 65}, "queries"),
        ({"queries": [{"uids": ["p1"]}, {"k": 0}]}, "queries.1.k"),
    ],
)
def test_a_bad_batch_names_its_field(client, body, field):
    refused(client.post("/v1/recommend/batch", json=body), 422, field)


def test_a_question_that_breaks_the_recommender_is_500_and_the_next_is_answered(client):
    assert "log" in refused(asked(client, title="poison"), 500)
    assert asked(client, uids=["p1"]).status_code == 200


def test_products_are_found_and_shown(client):
    found = client.get("/v1/products", params={"text": "Mug 4", "limit": 3}).json()["products"]
    assert [p["uid"] for p in found] == ["p4", "p40", "p41"]
    assert client.get("/v1/products/p4").json() == found[0]
    refused(client.get("/v1/products/nope"), 404, "uid")
    for limit in ("0", "101", "x", "1e3"):
        refused(client.get("/v1/products", params={"limit": limit}), 422, "limit")
    refused(client.get("/v1/products", params={"text": "x" * 501}), 422, "text")


@pytest.mark.parametrize("uid", ["new", "a/b", "ä ö", "50%", "batch", "..%2f", "a?b#c", "x" * 256])
def test_a_product_is_added_changed_and_deleted(client, uid):
    path = "/v1/products/" + "".join(f"%{byte:02x}" for byte in uid.encode())
    content = {
        "title": "Jug",
        "texts": ["of glass", "for 2 l"],
        "category": ["Kitchen"],
        "attributes": {"price": 5, "new": True},
    }
    put = client.put(path, json=content)
    assert put.status_code == 200 and put.json() | content == put.json()
    assert put.json()["live"] and put.json()["uid"] == uid
    assert client.get(path).json() == put.json()
    assert asked(client, uids=["p1"], k=1).json()["answers"][0]["uid"] == uid
    form = client.put(
        path, data={"product": '{"title": "Pot"}'}, files=[("images", ("a.jpg", BIG))]
    )
    assert form.json()["title"] == "Pot"
    assert form.json()["attributes"] == {} and form.json()["texts"] == []
    [key] = form.json()["pictures"]
    assert client.get(key).content == BIG
    assert client.delete(path).status_code == 204
    refused(client.delete(path), 404, "uid")
    refused(client.get(path), 404, "uid")


@pytest.mark.parametrize(
    "uid, content, field",
    [
        ("n", {"title": "refused"}, "title"),
        ("n", {"uid": "n"}, "uid"),
        ("n", {"texts": [""] * 33}, "texts"),
        ("n", {"attributes": {"a": None}}, "attributes.a"),
        ("n", {"attributes": {"a": [1]}}, "attributes.a"),
        ("n", {"attributes": {"": 1}}, None),
        ("n", {"images": [{"data": "aGk="}]}, "images.0"),
        ("%00", {}, "uid"),
        ("x" * 257, {}, "uid"),
    ],
)
def test_a_bad_product_is_refused(client, uid, content, field):
    response = client.put(f"/v1/products/{uid}", json=content)
    assert response.status_code == 422
    if field:
        refused(response, 422, field)
    assert client.get("/v1/products/n").status_code == 404


def test_a_batch_of_changes_is_one_transaction(served, client):
    body = {"upsert": [{"uid": "b1", "title": "Jug"}, {"uid": "b2"}], "delete": ["p9", "nope"]}
    before = len(served.keeper.commits)
    content = client.post("/v1/products/batch", json=body).json()
    assert content == {"upserted": 2, "deleted": 1}
    assert len(served.keeper.commits) == before + 1
    assert client.get("/v1/products/p9").status_code == 404
    bad = {"upsert": [{"uid": "b3"}, {"uid": "b4", "title": "refused"}]}
    refused(client.post("/v1/products/batch", json=bad), 422, "upsert.1.title")
    assert client.get("/v1/products/b3").status_code == 404
    both = {"upsert": [{"uid": "b3"}], "delete": ["b3"]}
    refused(client.post("/v1/products/batch", json=both), 422, "delete")
    bad = {"upsert": [{"uid": "b3", "images": [{"data": "aGk="}]}]}
    refused(client.post("/v1/products/batch", json=bad), 422, "upsert.0.images.0")
    refused(client.post("/v1/products/batch", json={"delete": ["x"] * 101}), 422, "delete")


def test_a_change_that_cannot_be_kept_is_503_and_changes_nothing(client):
    response = client.put("/v1/products/full", json={"title": "not kept"})
    assert "nothing was changed" in refused(response, 503)
    assert response.headers["retry-after"] == "1"
    assert client.get("/v1/products/full").status_code == 404


def test_other_paths_and_methods_are_sentences(client):
    for path in ("/nope", "/v1", "/v1/", "/v1/recommend/", "/static/../app.py"):
        assert refused(client.get(path), client.get(path).status_code)
        assert client.get(path).status_code in (404, 405)
    refused(client.get("/v1/products/"), 422, "uid")
    response = client.request("PATCH", "/v1/model")
    assert "GET /docs" in refused(response, 405) and set(response.headers["allow"].split(", ")) <= {
        "GET",
        "POST",
    }
    refused(client.get("/v1/recommend"), 405)
    refused(client.post("/v1/products/p1"), 405)


def test_health_is_also_asked_by_head(client):
    assert client.head("/healthz").status_code == 200 and client.head("/readyz").status_code == 200


def test_metrics_count_requests_batches_and_products():
    with running() as now, now.client() as client:
        for _ in range(3):
            asked(client, uids=["p1"], k=2)
        asked(client, title="Jug", k=4)
        asked(client, k=0)
        client.get("/v1/products/p1")
        client.get("/" + "x" * 50)
        client.put("/v1/products/new", json={})
        text = client.get("/metrics").text
    assert metric(text, 'mufin_requests_total{route="/v1/recommend",status="200"}') == 4
    assert metric(text, 'mufin_requests_total{route="/v1/recommend",status="422"}') == 1
    assert metric(text, 'mufin_requests_total{route="other",status="404"}') == 1
    assert metric(text, 'mufin_request_seconds_count{route="/v1/products/{uid:path}"}') == 2
    assert metric(text, "mufin_answers_total") == 10 and metric(text, "mufin_fallbacks_total") == 4
    assert metric(text, "mufin_batch_size_sum") == 4 and metric(text, "mufin_queue_depth") == 0
    assert metric(text, "mufin_live_products") == 1
    assert metric(text, 'mufin_model_info{id="first"}') == 1
    assert metric(text, 'mufin_device_seconds_total{work="answers"}') > 0
    assert "x" * 50 not in text


def test_json_is_ascii_and_has_no_nan(served, client, monkeypatch):
    from mufin.serving.answers import Product

    odd = Product("odd", "Krug ü \u2028", (), {"price": float("nan"), "n": 1.0}, (), True, False)
    monkeypatch.setitem(served.service.products, "odd", odd)
    response = client.get("/v1/products/odd")
    assert response.content.isascii()
    content = json.loads(response.content, parse_constant=lambda name: pytest.fail(name))
    assert content["attributes"] == {"price": None, "n": 1.0} and content["title"] == odd.title
