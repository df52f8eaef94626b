"""Who may ask: the key, and without one only this machine and no page of another site."""

from __future__ import annotations

import pytest

from mufin.errors import MufinError
from mufin.serving.web.auth import check_host, is_loopback, key_of_environment
from tests.support.web import running

ROUTES = [
    ("POST", "/v1/recommend"),
    ("POST", "/v1/recommend/batch"),
    ("GET", "/v1/products"),
    ("GET", "/v1/products/p1"),
    ("PUT", "/v1/products/p1"),
    ("DELETE", "/v1/products/p1"),
    ("POST", "/v1/products/batch"),
    ("GET", "/v1/pictures/evil"),
    ("GET", "/v1/model"),
    ("POST", "/v1/model"),
    ("GET", "/metrics"),
    ("GET", "/nope"),
    ("GET", "/docsx"),
    ("GET", "//v1/model"),
]
OPEN = ["/healthz", "/readyz", "/", "/static/app.js", "/docs", "/docs/start.js", "/openapi.json"]


@pytest.fixture(scope="module")
def keyed():
    with running(key="s3cret") as now:
        yield now


@pytest.fixture(scope="module")
def local():
    with running() as now:
        yield now


@pytest.mark.parametrize("method, path", ROUTES)
def test_a_route_needs_the_key(keyed, method, path):
    with keyed.client() as client:
        for headers in (
            {},
            {"X-API-Key": ""},
            {"X-API-Key": "s3cre"},
            {"X-API-Key": "S3CRET"},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "s3cret"},
            {"Authorization": "Basic s3cret"},
            {"Authorization": "Bearer"},
            {"X-API-Key": b"s3cret\xff"},
        ):
            response = client.request(method, path, headers=headers)
            assert response.status_code == 401, headers
            assert "API key" in response.json()["error"]
            assert response.headers["www-authenticate"] == "Bearer"
        for headers in (
            {"X-API-Key": "s3cret"},
            {"Authorization": "Bearer s3cret"},
            {"Authorization": "bearer  s3cret"},
        ):
            assert client.request(method, path, headers=headers).status_code != 401


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_files_of_the_page_need_no_key(keyed, path):
    with keyed.client() as client:
        assert client.get(path).status_code in (200, 404)


def test_a_key_makes_hosts_and_origins_free(keyed):
    with keyed.client() as client:
        headers = {"X-API-Key": "s3cret", "Host": "shop.example", "Origin": "https://a.example"}
        found = client.post("/v1/recommend", json={"uids": ["p2"]}, headers=headers)
        assert found.status_code == 200
        assert not any(name.startswith("access-control") for name in found.headers)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:99", "[::1]"])
def test_without_a_key_names_of_this_machine_are_answered(local, host):
    with local.client() as client:
        assert client.get("/v1/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:8000"]
    + ["192.168.1.5", "localhost@evil.example", "evil.example#localhost", "[::2]", "[", "", "a b"]
    + ["127.0.0.1:x", "localhost:0"],
)
def test_without_a_key_other_hosts_are_refused(local, host):
    with local.client() as client:
        for method, path in [("GET", "/v1/model"), ("POST", "/v1/recommend"), ("GET", "/")]:
            response = client.request(method, path, headers={"Host": host})
            assert response.status_code in (400, 403)
        assert client.get("/healthz", headers={"Host": host or "x"}).status_code in (200, 400)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_without_a_key_a_page_of_another_site_changes_nothing(local, headers):
    with local.client() as client:
        for method, path in [("POST", "/v1/recommend"), ("DELETE", "/v1/products/p1")]:
            response = client.request(method, path, headers=headers)
            assert response.status_code == 403 and "another site" in response.json()["error"]
    assert "p1" in local.service.products


def test_without_a_key_the_own_page_may_ask(local):
    with local.client() as client:
        headers = {"Origin": local.url, "Sec-Fetch-Site": "same-origin"}
        found = client.post("/v1/recommend", json={"uids": ["p1"]}, headers=headers)
        assert found.status_code == 200
        # a link on another site may lead to the page
        assert client.get("/docs", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.org", "127.1"])
def test_without_a_key_only_loopback_is_bound(host):
    with pytest.raises(MufinError, match="MUFIN_API_KEY"):
        check_host(host, None)
    check_host(host, "s3cret")


def test_loopback_addresses_are_known():
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"]))
    assert not any(map(is_loopback, ["localhost.evil.example", "1.1.1.1", "", "::2", "local"]))


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("MUFIN_API_KEY", raising=False)
    assert key_of_environment() is None
    monkeypatch.setenv("MUFIN_API_KEY", "")
    assert key_of_environment() is None
    monkeypatch.setenv("MUFIN_API_KEY", "s3cret")
    assert key_of_environment() == "s3cret"
    for bad in ("s3 cret", "sécret", "a\n"):
        monkeypatch.setenv("MUFIN_API_KEY", bad)
        with pytest.raises(MufinError, match="MUFIN_API_KEY"):
            key_of_environment()
