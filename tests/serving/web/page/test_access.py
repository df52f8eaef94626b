"""The page for everyone: keyboard, screen reader, contrast, phone, motion."""

from __future__ import annotations

import re

import pytest

from tests.serving.web.page.views import BLUE, MUG, cards, settled, titles
from tests.support.browsers import faint, nameless


def test_theme_follows_the_system_until_chosen(opened):
    page = opened("/", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    assert max(map(int, re.findall(r"\d+", dark))) < 60
    page.get_by_role("button", name="Theme: system").click()
    assert min(map(int, re.findall(r"\d+", page.evaluate(ground)))) > 200
    page.reload()
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(ground) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_in(opened, scheme):
    page = opened("/", color_scheme=scheme)
    page.get_by_text("Describe a product").click()
    assert faint(page) == []
    page.goto("/?p=gone&avoid=mug-red-large&p=mug-blue-small")
    page.get_by_role("alert").get_by_text("gone is not").wait_for()
    assert faint(page) == []
    page.goto("/?p=blank&p=mug-red-large&avoid=lamp-red-large&why=mug-red-small&beta=0.3&k=40")
    titles(page)
    page.locator("#attention path").first.wait_for()
    assert faint(page) == []
    page.get_by_role("button", name="Edit catalog").click()
    assert faint(page) == []


def test_everything_has_a_name_to_be_said(opened):
    page = opened("/?p=mug-red-large&avoid=lamp-red-large&why=mug-red-small&title=new")
    titles(page)
    page.locator("summary", has_text="Price").click()
    page.get_by_label("choose pictures").first.set_input_files([BLUE])
    settled(page)
    assert nameless(page) == []
    for role in ("banner", "main", "complementary"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    page.get_by_role("button", name="Edit catalog").click()
    assert nameless(page) == []


@pytest.mark.parametrize("path", ["/", "/?p=long&p=right-to-left&avoid=hostile&k=40&why=long"])
def test_a_phone_scrolls_only_down(opened, path):
    page = opened(path, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    if path != "/":
        titles(page)
    page.get_by_text("Describe a product").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    if path != "/":
        page.get_by_text("Settings and filters").click()
    else:
        page.get_by_role("button", name="Edit catalog").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    outside = """[...document.querySelectorAll("main *, dialog[open] *")].filter((e) =>
      e.checkVisibility() && !e.closest(".spoken") && e.getBoundingClientRect().right > 361)
      .map((e) => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside) == []


def test_a_phone_has_a_list_in_place_of_lines(opened):
    page = opened(MUG, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    titles(page)
    assert not page.get_by_role("slider", name="Mix").is_visible()  # settings begin closed
    cards(page).first.get_by_role("button", name="Why").tap()
    assert page.get_by_text("picture 2 → title, 0.61 by attention").first.is_visible()
    page.wait_for_timeout(300)
    assert page.locator("#attention path").count() == 0


def test_long_and_right_to_left_titles_keep_the_layout(opened):
    page = opened("/?p=long&p=right-to-left&k=40")
    titles(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    page.goto("/?p=mug-red-large&k=40")
    titles(page)
    heights = [card.locator("h3").bounding_box()["height"] for card in cards(page).all()]
    assert max(heights) < 90
    link = page.get_by_role("link", name=re.compile("קרמיקה"))
    assert link.evaluate("e => getComputedStyle(e).direction") == "rtl"


def test_the_page_works_where_nothing_may_be_stored(opened, api):
    page = opened("/healthz")  # any path of this origin
    page.add_init_script("""for (const name of ["localStorage", "sessionStorage"])
      Object.defineProperty(window, name, { get() { throw new DOMException("no"); } });""")
    page.goto(MUG)
    assert titles(page)
    page.get_by_role("button", name="Theme: system").click()
    assert page.get_by_role("button", name="Theme: light").is_visible()


def test_nothing_moves_for_those_who_want_that(opened, api):
    api.delays = [0.4]
    page = opened(MUG, reduced_motion="reduce")
    page.locator(".skeleton").first.wait_for()
    assert page.evaluate("document.getAnimations().length") == 0
    titles(page)
    moving = """[...document.querySelectorAll("*")].filter((e) => {
      const style = getComputedStyle(e);
      return style.animationName !== "none" || parseFloat(style.transitionDuration) > 0;
    }).length"""
    assert page.evaluate(moving) == 0
