"""Asking about products of the catalog: search, basket, history."""

from __future__ import annotations

import re

from tests.serving.web.page.views import MUG, address, cards, heading, settled, titles


def test_a_suggestion_is_asked_about(opened, api):
    page = opened()
    page.get_by_role("button", name="Bowl, red, small").click()
    heading(page, "Related to Bowl, red, small")
    assert "Bowl, red, large" in titles(page)[:2]
    assert api.asked[-1]["uids"] == ["bowl-red-small"] and api.asked[-1]["reasons"] is True


def test_search_is_a_combobox(opened):
    page = opened()
    search = page.get_by_role("combobox", name="Find a product")
    assert search.get_attribute("aria-expanded") == "false"
    search.fill("chair, b")
    options = page.get_by_role("listbox", name="Find a product").get_by_role("option")
    options.first.wait_for()
    assert search.get_attribute("aria-expanded") == "true"
    assert options.count() == 2
    search.press("ArrowDown")
    search.press("ArrowDown")
    chosen = page.locator("[role=option][aria-selected=true]")
    assert "Chair, blue, large" in chosen.inner_text()
    assert search.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    search.press("ArrowDown")  # around to the first
    assert "small" in page.locator("[role=option][aria-selected=true]").inner_text()
    search.press("Escape")
    assert search.get_attribute("aria-expanded") == "false"
    assert search.get_attribute("aria-activedescendant") is None
    assert search.input_value() == "chair, b"


def test_enter_before_the_list_is_there_takes_its_first(opened):
    page = opened()
    search = page.get_by_role("combobox", name="Find a product")
    search.fill("lamp, green")
    search.press("Enter")
    heading(page, "Related to Lamp, green, small")


def test_a_search_without_a_hit_says_so(opened):
    page = opened()
    page.get_by_role("combobox").fill("<b>zz</b>")
    page.get_by_text("Nothing has “<b>zz</b>” in it.").wait_for()
    page.keyboard.press("Enter")
    assert page.url.endswith("/")


def test_the_keyboard_alone_is_enough(opened):
    page = opened()

    def tab_to(name: str) -> None:
        said = (
            "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
        )
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(said) == name:
                outline = "getComputedStyle(document.activeElement, '%s').outlineStyle"
                shown = {page.evaluate(outline % pseudo) for pseudo in ("", "::after")}
                assert "solid" in shown  # one sees where the keyboard is
                return
        raise AssertionError(f"Tab does not reach {name}")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Go to the answers"
    page.get_by_role("combobox").focus()
    page.keyboard.type("mug, red, large")
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    heading(page, "Related to Mug, red, large")
    first, second = titles(page)[:2]
    tab_to(f"Why {first}")
    page.keyboard.press("Enter")
    page.locator("#attention path").first.wait_for()
    assert cards(page).first.get_by_text("picture 2 → title, 0.61 by attention").is_visible()
    page.keyboard.press("Escape")
    page.locator(".details").first.wait_for(state="hidden")
    tab_to(second)
    page.keyboard.press("Enter")
    heading(page, f"Related to {second}")
    assert page.evaluate("document.activeElement.id") == "heading"


def test_an_answer_is_asked_about_and_back_works(opened):
    page = opened(MUG)
    before = titles(page)
    cards(page).nth(1).locator(".picture").first.click(force=True)  # the whole card is the link
    heading(page, f"Related to {before[1]}")
    assert titles(page) != before
    page.go_back()
    heading(page, "Related to Mug, red, large")
    page.wait_for_function(
        "first => document.querySelector('#cards a')?.text === first", arg=before[0]
    )
    assert titles(page) == before
    page.go_forward()
    heading(page, f"Related to {before[1]}")


def test_back_returns_to_the_place_on_the_page(opened):
    page = opened("/?p=mug-red-large&k=30")
    title = titles(page)[9]
    page.evaluate("scrollTo(0, 700)")
    page.get_by_role("link", name=title, exact=True).click()
    heading(page, f"Related to {title}")
    titles(page)
    assert page.evaluate("scrollY") == 0
    page.go_back()
    heading(page, "Related to Mug, red, large")
    titles(page)
    assert page.evaluate("scrollY") > 300


def test_several_products_are_a_basket(opened, api):
    page = opened(MUG)
    titles(page)
    page.get_by_role("button", name="Add a product").click()
    page.get_by_role("combobox", name="Add a product to the basket").fill("chair, blue")
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Enter")
    heading(page, "Related to these 2 products")
    settled(page)
    assert api.asked[-1]["uids"] == ["mug-red-large", "chair-blue-small"]
    name = titles(page)[0]
    page.get_by_role("button", name=f"More like {name}").click()
    heading(page, "Related to these 3 products")
    page.get_by_role("button", name="Remove Mug, red, large").click()
    heading(page, "Related to these 2 products")
    assert "mug-red-large" not in address(page)["p"]


def test_a_product_is_avoided_and_asked_about_again(opened, api):
    page = opened(MUG)
    before = titles(page)
    assert before[0] == "Mug, red, small"
    cards(page).nth(2).get_by_role("button", name="Less like").click()
    page.locator(".item.avoided").get_by_text("less like this").wait_for()
    settled(page)
    assert api.asked[-1]["avoid"] == ["bowl-red-small"]
    assert before[2] not in titles(page)
    assert "avoid" in page.get_by_role("list", name="Parts of the scores").inner_text()
    page.get_by_role("button", name=re.compile("^Ask about .* instead of avoiding it")).click()
    settled(page)
    assert "avoid" not in api.asked[-1] and len(api.asked[-1]["uids"]) == 2
