"""The state of the page in its address."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, quote, urlsplit

from tests.serving.web.page.views import MUG, settled, titles

FULL = {
    "p": ["mug-red-large", "odd/id ?&#"],
    "avoid": ["lamp-green-small"],
    "title": ["A “new” thing & more"],
    "text": ["A text & more", "Another one"],
    "category": ["Kitchen", "Mugs"],
    "k": ["5"],
    "fold": ["1"],
    "by": ["text,image"],
    "beta": ["0.25"],
    "why": ["mug-red-small"],
}
WHERE = {"price": {"gte": 4, "lte": 30}, "in_stock": True, "colour": ["red", "blue"]}


def test_an_address_opens_the_same_view(opened, api):
    text = "&".join(f"{name}={quote(v, safe='')}" for name, vs in FULL.items() for v in vs)
    page = opened(f"/?{text}&where={quote(json.dumps(WHERE))}")
    titles(page)
    asked = api.asked[-1]
    assert asked["uids"] == FULL["p"] and asked["avoid"] == FULL["avoid"]
    assert asked["mix"] == {"beta": 0.25} and asked["fold"] and asked["where"] == WHERE
    assert asked["modalities"] == ["text", "image"] and asked["category"] == FULL["category"]
    assert asked["texts"] == FULL["text"]
    page.get_by_label("Answers", exact=True).fill("6")
    settled(page)
    page.wait_for_url("**k=6**")
    view = "document.getElementById('work').innerText"
    fields = "[...document.querySelectorAll('main :is(input, textarea)')]"
    state = f"{fields}.map((i) => [i.value, i.checked].join())"
    first = [page.evaluate(view), page.evaluate(state)]
    again = opened(urlsplit(page.url)._replace(scheme="", netloc="").geturl())
    titles(again)
    assert [again.evaluate(view), again.evaluate(state)] == first
    assert api.asked[-1] == asked | {"k": 6}


def test_copy_link_copies_the_whole_state(opened):
    page = opened(MUG, permissions=["clipboard-read", "clipboard-write"])
    titles(page)
    page.get_by_role("slider", name="Mix").fill("0.7")
    page.get_by_role("button", name="Copy link").click()  # before the address is written
    page.get_by_role("status").get_by_text("The link is copied.").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert parse_qs(urlsplit(copied).query) == {"p": ["mug-red-large"], "beta": ["0.7"]}
    assert copied.startswith(page.url.split("?")[0])
    page.get_by_role("status").get_by_text("12 answers").wait_for()  # again, after a while
