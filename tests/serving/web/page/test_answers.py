"""Answers: scores, reasons, untrusted texts."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest

from tests.serving.web.page.views import MUG, cards, settled, titles


def test_a_card_says_what_its_score_is_made_of(opened):
    page = opened("/?p=mug-red-large&p=chair-red-large&avoid=lamp-red-small")
    titles(page)
    card = cards(page).first
    text = card.get_by_role("img", name=re.compile("^score ")).get_attribute("aria-label")
    score, rest = re.fullmatch(r"score (\S+): (.*)", text).groups()
    parts = [float(part.split()[-1]) for part in rest.split(", ")]
    assert min(parts) < 0 and float(score) == pytest.approx(sum(parts), abs=0.016)
    assert card.locator(".number").inner_text() == score
    boxes = [piece.bounding_box() for piece in card.locator(".piece").all()]
    zero = card.locator(".zero").bounding_box()["x"]
    for part, box in zip(parts, boxes):  # below zero to the left of the line, above to the right
        middle = box["x"] + box["width"] / 2
        assert (middle < zero) == (part < 0)
    widths = [box["width"] for box in boxes]
    sizes = [abs(part) for part in parts]
    for width, size in zip(widths, sizes):
        assert width / sum(widths) == pytest.approx(size / sum(sizes), abs=0.04)


def test_a_card_has_category_and_attributes(opened):
    page = opened(MUG)
    titles(page)
    text = cards(page).first.inner_text()
    assert "Kitchen › Mugs" in text
    assert re.search(r"price\s5\b", text) and re.search(r"in stock\syes", text)


def test_lines_follow_the_weights(opened):
    page = opened(MUG)
    titles(page)
    cards(page).nth(1).hover()
    page.locator("#attention path").first.wait_for()
    lines = page.locator("#attention path").all()
    widths = [float(line.get_attribute("stroke-width")) for line in lines]
    opacities = [float(line.get_attribute("opacity")) for line in lines]
    assert page.locator("#attention text").all_text_contents() == ["0.61", "0.47", "0.28"]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 3
    assert opacities == sorted(opacities, reverse=True) and len(set(opacities)) == 3
    ends = page.evaluate("""() => [...document.querySelectorAll("#attention path")].map((line) => {
      const length = line.getTotalLength();
      return [0, length].map((l) => line.getPointAtLength(l)).map(({ x, y }) => [x, y]);
    })""")
    asked = page.locator("#asked .node-picture").nth(1).bounding_box()
    answer = cards(page).nth(1).locator(".node-title").bounding_box()
    (x1, y1), (x2, y2) = ends[0]  # picture 2 → title
    assert asked["x"] < x1 < asked["x"] + asked["width"]
    assert y1 == pytest.approx(asked["y"] + asked["height"], abs=2)
    assert answer["x"] < x2 < answer["x"] + answer["width"]
    assert y2 == pytest.approx(answer["y"], abs=2)
    page.mouse.move(1, 1)
    page.locator("#attention path").first.wait_for(state="detached")


def test_lines_stay_at_their_descriptors_when_scrolled(opened):
    page = opened("/?p=mug-red-large&k=30&why=lamp-red-large")
    titles(page)
    page.mouse.wheel(0, 500)
    page.wait_for_timeout(200)
    end = page.evaluate("""() => {
      const line = document.querySelector("#attention path");
      return line.getPointAtLength(line.getTotalLength()).y;
    }""")
    title = page.locator(".card.chosen .node-title").bounding_box()
    assert end == pytest.approx(title["y"], abs=2)


def test_reasons_of_a_basket_name_the_product(opened):
    page = opened("/?p=mug-red-large&p=chair-blue-large&why=lamp-red-large")
    titles(page)
    text = page.locator(".card.chosen .details").inner_text()
    assert "Mug, red, large: picture 2 → title, 0.61 by attention" in text
    assert "Chair, blue, large: picture 2 → title, 0.61 by attention" in text


def test_a_fallback_answer_is_marked(opened):
    page = opened("/?p=blank&k=40")
    titles(page)
    said = "popular in Mugs: this product has no title or picture that the model reads"
    assert cards(page).first.get_by_text(said).is_visible()
    assert page.get_by_text(re.compile("^popular in the whole catalog")).count()


def test_a_hostile_title_is_only_text(opened, api):
    page = opened("/?p=hostile&why=mug-red-small")
    titles(page)
    assert api.items["hostile"].title in page.locator("#heading").inner_text()
    page.goto("/?p=mug-red-small&k=40")
    titles(page)
    page.get_by_role("combobox").fill("onerror")
    page.get_by_role("option").first.wait_for()
    assert page.locator("main b, main script, img[src=x]").count() == 0
    page.wait_for_timeout(100)
    assert page.title() == "Related to Mug, red, small – MUFIN"
    hostile = json.dumps({"<img src=x onerror=alert(1)>": ["x"], "price": None, "in_stock": 7})
    page.goto(
        f"/?title={quote(api.items['hostile'].title)}&where={quote(hostile)}&k=1e9&beta=9&by=,"
    )
    settled(page)
    assert page.locator("img[src=x]").count() == 0


def test_pictures_keep_their_place_before_they_come(opened):
    page = opened("/?p=mug-red-large&k=30")
    titles(page)
    for img in page.locator("#cards img").all():
        assert img.get_attribute("loading") == "lazy"
    boxes = [frame.bounding_box() for frame in page.locator(".card > .node .picture").all()]
    assert all(box["width"] == pytest.approx(box["height"], abs=1) for box in boxes)


def test_new_answers_move_nothing_else(opened, api):
    page = opened(MUG)
    titles(page)
    page.evaluate("""() => {
      window.moved = 0;
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.moved += entry.value;
      }).observe({ type: "layout-shift", buffered: true });
    }""")
    api.delays = [0.7]
    page.get_by_label("Pictures", exact=True).uncheck()
    settled(page)
    cards(page).first.get_by_role("button", name="Why").click()
    page.wait_for_timeout(300)
    assert page.evaluate("window.moved") < 0.05


def test_many_pictures_fit_into_their_card(opened):
    page = opened("/?p=many&k=3&why=mug-red-small")
    titles(page)
    outside = """(box) => [...box.querySelectorAll("*")].filter((e) => e.checkVisibility() &&
      e.getBoundingClientRect().right > box.getBoundingClientRect().right + 0.5).length"""
    assert page.locator(".item").evaluate(outside) == 0
    assert page.locator(".item .node-picture").count() == 7  # the last one stands for 3
    page.goto("/?p=lamp-red-small&k=40")
    titles(page)
    card = page.locator(".card", has=page.get_by_role("link", name="Lamp of nine pictures"))
    assert card.evaluate(outside) == 0 and card.get_by_text("+3").is_visible()
