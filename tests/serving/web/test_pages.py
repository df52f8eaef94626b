"""Files for a browser: the page, the documentation, and headers that bound what they may do."""

from __future__ import annotations

import json

import pytest

from mufin.serving.web import pages
from tests.support.web import SECONDS, running


@pytest.fixture(scope="module")
def client():
    with running() as now, now.client() as client:
        yield client


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A folder that stands for the page of the package."""
    inside = tmp_path / "page"
    (inside / "more").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (inside / "more" / "deep.js").write_text("deep")
    for name in ("index.html", "app.js", "style.css"):
        (inside / name).write_text(f"this is {name}")
    monkeypatch.setattr(pages, "PAGE", inside)
    return inside


def test_the_page_and_its_files_are_served_with_their_types(client, page):
    assert client.get("/").text == "this is index.html"
    for path, kind in [
        ("/", "text/html; charset=utf-8"),
        ("/static/app.js", "text/javascript; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
    ]:
        assert client.get(path).headers["content-type"] == kind
    tag = client.get("/static/app.js").headers["etag"]
    assert client.get("/static/app.js", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static/nope", "/static/..%2fsecret.txt", "/static/%2e%2e/secret.txt"]
    + ["/static/%2fetc%2fpasswd", "/static/more/deep.js", "/static/more", "/static/app.js%00"]
    + ["/static/..\\secret.txt", "/docs/..%2f__init__.py", "/docs/swagger-initializer.js"],
)
def test_no_other_file_is_served(client, page, path):
    response = client.get(path)
    assert response.status_code == 404 and set(response.json()) == {"error", "field"}


def test_an_installation_without_the_page_says_so(client, page):
    (page / "index.html").unlink()
    response = client.get("/")
    assert response.status_code == 404 and "not part of this installation" in response.text


def test_every_answer_bounds_what_a_browser_does_with_it(client, page):
    for path in ("/", "/static/app.js", "/v1/model", "/nope", "/v1/products/nope", "/metrics"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; img-src 'self' data: blob:;")
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "cache-control" in headers and "server" not in headers
        assert not any(name.startswith("access-control") for name in headers)


def test_the_documentation_needs_no_network(client):
    index = client.get("/docs")
    assert index.status_code == 200 and "//" not in index.text
    assert "unsafe-eval" not in index.headers["content-security-policy"]
    assert "<script>" not in index.text  # the policy allows no script inside of it
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert name in index.text
        assert client.get(f"/docs/{name}").status_code == 200
    assert len(client.get("/docs/swagger-ui-bundle.js").content) > 100_000
    assert "/docs/openapi.json" in client.get("/docs/start.js").text
    content = client.get("/docs/openapi.json").json()
    assert content["openapi"] == "3.0.3" and '"null"' not in json.dumps(content)
    question = content["components"]["schemas"]["Question"]["properties"]
    assert question["candidates"]["nullable"] and question["candidates"]["type"] == "array"
    assert set(content["paths"]) == set(client.get("/openapi.json").json()["paths"])


def test_the_documentation_works_in_a_browser_under_its_policy(browser):
    with running() as now, browser.new_context() as context:
        page, said, asked = context.new_page(), [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{now.url}/docs")
        page.get_by_text("/v1/recommend/batch").first.wait_for(timeout=SECONDS * 1000)
        page.locator("#operations-default-recommend_v1_recommend_post").click()
        page.get_by_role("button", name="Try it out").click()
        page.locator("textarea").fill('{"uids": ["p1"], "k": 1}')
        page.get_by_role("button", name="Execute").click()
        status = page.locator(".live-responses-table .response .response-col_status")
        status.first.wait_for(timeout=SECONDS * 1000)
        assert status.first.inner_text().startswith("200")
    assert not said
    assert all(url.startswith((now.url, "data:", "blob:")) for url in asked)
