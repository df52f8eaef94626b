"""A product that is not in the catalog: title, category and pictures."""

from __future__ import annotations

import pytest

from tests.serving.web.page.views import BLUE, GIVE, RED, cards, heading, settled, titles


def test_pictures_are_chosen_removed_and_sent(opened, api):
    page = opened()
    page.get_by_text("Describe a product").click()
    page.get_by_label("choose pictures").first.set_input_files([BLUE, RED])
    heading(page, "Related to this product")
    settled(page)
    assert api.asked[-1]["uploads"] == 2
    assert "blue" in titles(page)[0]
    page.get_by_role("button", name="Remove picture 1, blue.png").click()
    settled(page)
    assert api.asked[-1]["uploads"] == 1
    assert "red" in titles(page)[0]
    page.get_by_role("textbox", name="Title").fill("lamp")
    heading(page, "Related to lamp")
    settled(page)
    assert (api.asked[-1]["title"], api.asked[-1]["uploads"]) == ("lamp", 1)
    page.get_by_role("textbox", name="Category").fill("Home > Lamps")
    settled(page)
    assert api.asked[-1]["category"] == ["Home", "Lamps"]
    page.go_back()
    page.get_by_role("heading", name="Start with a product").wait_for()
    page.go_forward()
    settled(page)
    assert api.asked[-1]["uploads"] == 1  # kept for this entry of the history


def test_texts_are_sent_and_quoted_in_reasons(opened, api):
    page = opened()
    page.get_by_text("Describe a product").click()
    page.get_by_label("More texts").first.fill("A small mug.\nMade by hand.")
    settled(page)
    titles(page)
    assert api.asked[-1]["texts"] == ["A small mug.", "Made by hand."]
    assert page.locator("#asked .node-text").all_inner_texts() == ["text 1", "text 2"]
    cards(page).first.get_by_role("button", name="Why").click()
    said = "text 1 “A small mug.” → text 2 “Made in Bohemia.”, 0.73 by attention"
    assert page.get_by_text(said).first.is_visible()
    assert page.locator(".card.chosen .node-text").all_inner_texts() == ["text 2"]
    page.locator("#attention path").first.wait_for(state="attached")
    page.get_by_role("button", name="Remove New product").click()
    page.get_by_role("heading", name="Start with a product").wait_for()
    assert page.get_by_label("More texts").first.input_value() == ""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_pictures_are_taken_from(opened, api, kind):
    page = opened()
    assert page.evaluate(GIVE, [kind, "main", list(BLUE["buffer"]), "image/png"])
    page.get_by_role("button", name="Remove picture 1, given").wait_for()
    settled(page)
    assert "blue" in titles(page)[0] and api.asked[-1]["uploads"] == 1


def test_text_with_a_picture_is_pasted_as_text(opened, api):
    page = opened()
    page.get_by_text("Describe a product").click()
    given = ["paste", "#title", list(BLUE["buffer"]), "image/png", "a text"]
    assert not page.evaluate(GIVE, given)  # the browser goes on with it
    assert page.get_by_role("button", name="Remove picture").count() == 0


def test_a_file_that_is_no_picture_is_left_out(opened, api):
    page = opened()
    page.evaluate(GIVE, ["drop", "main", [1, 2], "text/html"])
    page.get_by_role("status").get_by_text("1 of 1 files left out: not a picture.").wait_for()
    assert api.asked == []


def test_pictures_that_a_reload_loses_are_named(opened):
    page = opened()
    page.evaluate(GIVE, ["drop", "main", list(BLUE["buffer"]), "image/png"])
    titles(page)
    page.reload()
    page.get_by_text("1 picture of this view was not kept; add it again.").wait_for()


def test_a_broken_picture_is_named_by_its_place(opened):
    page = opened()
    page.get_by_text("Describe a product").click()
    broken = RED | {"buffer": b"no picture"}
    page.get_by_label("choose pictures").first.set_input_files([BLUE, broken])
    page.get_by_role("alert").get_by_text("picture 2 is not used (not a picture)").wait_for()
    page.get_by_role("button", name="Remove picture 2, red.png").click()
    assert "blue" in titles(page)[0]
