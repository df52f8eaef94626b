"""What the page says when the server refuses, is busy, or cannot be reached."""

from __future__ import annotations

from tests.serving.web.page.views import MUG, cards, titles


def test_a_refusal_is_said_in_words(opened):
    page = opened("/?p=mug-red-large&k=5000")
    alert = page.get_by_role("alert")
    alert.get_by_text("k is 5000; it must be less than or equal to 1000.").wait_for()
    assert cards(page).count() == 0
    page.get_by_label("Answers", exact=True).fill("3")
    alert.first.wait_for(state="hidden")
    assert len(titles(page)) == 3


def test_a_product_that_is_gone_is_named(opened):
    page = opened("/?p=gone")
    page.get_by_role("alert").get_by_text("gone is not a product of the catalog").wait_for()
    assert page.locator(".item").get_by_text("not in the catalog").is_visible()


def test_a_busy_server_is_asked_once_more(opened, api):
    api.refusals = [(503, "busy; try again later", {"Retry-After": "1"})]
    page = opened(MUG)
    page.get_by_role("status").get_by_text("trying again in 1 s").wait_for()
    assert titles(page) and len(api.asked) == 2


def test_a_server_that_stays_busy_is_an_error(opened, api):
    api.refusals = [(503, "the queue is full; try again later", {"Retry-After": "1"})] * 2
    page = opened(MUG)
    page.get_by_role("alert").get_by_text("the queue is full; try again later.").wait_for()
    assert len(api.asked) == 2
    page.get_by_role("button", name="Try again").click()
    assert titles(page)


def test_offline_is_said_and_mended(opened):
    page = opened(MUG)
    titles(page)
    page.context.set_offline(True)
    page.get_by_label("Answers", exact=True).fill("3")
    page.get_by_role("alert").get_by_text("this device is offline").wait_for()
    page.context.set_offline(False)  # the page asks again by itself
    assert len(titles(page)) == 3


def test_an_api_key_is_asked_for_and_kept(opened, api):
    api.key = "sesame"
    page = opened(MUG)
    page.get_by_role("alert").get_by_text("the API key is missing or wrong").wait_for()
    page.get_by_label("API key").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("This key is not the one of the server.").wait_for()
    page.get_by_label("API key").fill("sesame")
    page.get_by_role("button", name="Use this key").click()
    assert titles(page) and not page.get_by_label("API key").is_visible()
    loaded = "document.querySelector('#cards img').naturalWidth > 0"
    page.wait_for_function(loaded)  # a picture needs the key too
    assert page.locator("#cards img").first.get_attribute("src").startswith("blob:")
    assert page.evaluate("Object.values(sessionStorage)") == ["sesame"]
    assert "sesame" not in page.url + str(page.evaluate("Object.values(localStorage)"))
    page.reload()
    assert titles(page)
