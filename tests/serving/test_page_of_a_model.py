"""The page on the real server with a trained model, in Chromium."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.serving.test_process import running
from tests.serving.web.page.conftest import Window
from tests.serving.web.page.views import RED, cards, settled, titles


@pytest.fixture(scope="module")
def client(finished, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "store.sqlite"
    with running(finished, store) as (_, client):
        yield client


class Address:
    """What a window needs of a server."""

    def __init__(self, client: httpx.Client):
        self.url = str(client.base_url)


@pytest.fixture
def window(browser, client):
    window = Window(browser, Address(client))
    yield window
    window.context.close()
    assert window.errors == [] and len(window.hosts) == 1


def asked(client: httpx.Client, **question) -> list[dict]:
    return client.post("/v1/recommend", json={"k": 12, **question}).json()["answers"]


def a_product(client: httpx.Client) -> dict:
    """A product with a title and pictures."""
    products = client.get("/v1/products", params={"limit": 50}).json()["products"]
    return next(p for p in products if p["title"] and len(p["pictures"]) > 1)


def test_the_page_shows_what_the_api_answers(window, client):
    product = a_product(client)
    window.page.goto(f"/?p={product['uid']}")
    shown = titles(window.page)
    assert shown == [
        answer["title"] or answer["uid"] for answer in asked(client, uids=[product["uid"]])
    ]
    first = cards(window.page).first.locator("img").first
    first.wait_for()
    assert first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_a_search_leads_to_answers_and_reasons(window, client):
    product = a_product(client)
    page = window.page
    page.goto("/")
    search = page.get_by_role("combobox", name="Find a product")
    search.fill(product["title"])
    page.get_by_role("option").first.wait_for()
    search.press("Enter")
    titles(page)
    assert f"p={product['uid']}" in page.url
    cards(page).first.get_by_role("button", name="Why").click()
    said = page.get_by_text(re.compile(r"(picture \d+|title|words) → .*0\.\d+ by attention")).first
    said.wait_for()
    assert page.locator("svg path").count() >= 1


def test_a_described_product_with_a_picture_is_answered(window, client):
    page = window.page
    page.goto("/")
    page.get_by_text("Describe a product that is not in the catalog").click()
    page.get_by_label("Title", exact=True).first.fill("red mug")
    page.locator("input[type=file]").first.set_input_files(RED)
    settled(page)
    assert len(titles(page)) == 12


def test_a_product_that_is_put_is_found_by_the_page(window, client):
    response = client.put("/v1/products/new-1", json={"title": "Zanzibar <b>lamp</b>"})
    assert response.status_code == 200
    page = window.page
    page.goto("/")
    page.get_by_role("combobox", name="Find a product").fill("zanzibar")
    option = page.get_by_role("option").first
    option.wait_for()
    assert "Zanzibar <b>lamp</b>" in option.inner_text()
