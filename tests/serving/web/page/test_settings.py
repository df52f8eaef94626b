"""Settings and filters, each answered at once."""

from __future__ import annotations

import re

from tests.serving.web.page.views import MUG, address, cards, settled, titles
from tests.support.fake_products import BETA


def test_modalities_change_the_answers(opened, api):
    page = opened("/?p=mug-red-large&k=3&beta=0")
    before = titles(page)
    page.get_by_label("Pictures", exact=True).uncheck()
    settled(page)
    assert api.asked[-1]["modalities"] == ["text", "lexical"]
    assert titles(page) != before
    page.get_by_role("checkbox", name="Texts").uncheck()
    page.get_by_label("Words", exact=True).click()  # the last one
    page.get_by_role("status").get_by_text("One of them must stay on.").wait_for()
    assert page.get_by_label("Words", exact=True).is_checked()
    assert address(page)["by"] == ["lexical"]


def test_the_mix_shows_the_models_own_value(opened, api):
    page = opened(MUG)
    titles(page)
    slider = page.get_by_role("slider", name="Mix")
    assert float(slider.input_value()) == BETA
    assert page.get_by_text(f"The model's own value is {BETA}.").is_visible()
    assert "mix" not in api.asked[-1]
    slider.fill("1")
    settled(page)
    assert api.asked[-1]["mix"] == {"beta": 1}
    assert (
        cards(page)
        .first.get_by_role("img", name=re.compile("^score 0.80: classifier 0.80"))
        .count()
    )
    page.get_by_role("button", name="Use it").click()
    settled(page)
    assert "mix" not in api.asked[-1]


def test_k_and_variants_are_answered_at_once(opened, api):
    page = opened(MUG)
    assert len(titles(page)) == 12
    page.get_by_label("Answers", exact=True).fill("4")
    settled(page)
    assert len(titles(page)) == 4
    page.get_by_label("One per group of variants").check()
    settled(page)
    assert len({title.split(",")[0] for title in titles(page)}) == 4


def test_filters_are_those_of_the_model(opened, api):
    page = opened(MUG)
    titles(page)
    page.locator("summary", has_text="Price").click()
    page.get_by_label("Lowest price").fill("20")
    page.get_by_label("Highest price").fill("24")
    page.locator("summary", has_text="In stock").click()
    page.get_by_role("radio", name="yes").check()
    page.locator("summary", has_text="Colour").click()
    page.get_by_role("checkbox", name="blue").check()
    page.get_by_role("checkbox", name="Home").check()
    settled(page)
    where = {"price": {"gte": 20, "lte": 24}, "in_stock": True, "colour": ["blue"]}
    assert api.asked[-1]["where"] == where | {"category": ["Home"]}
    assert titles(page) == ["Chair, blue, small"]
    page.get_by_label("Lowest price").fill("23")
    page.get_by_role("heading", name="No answers").wait_for()
    page.get_by_role("button", name="Clear all filters").click()
    settled(page)
    assert len(titles(page)) == 12
    assert page.get_by_label("Lowest price").input_value() == ""


def test_many_values_of_a_filter_can_be_searched(opened):
    page = opened(MUG)
    titles(page)
    page.get_by_label("Find a value of category").fill("lam")
    values = page.locator(".values").first.get_by_role("checkbox")
    assert values.count() == 1
    values.check()
    settled(page)
    assert all(title.startswith("Lamp") for title in titles(page))


def test_the_latest_answer_wins(opened, api):
    page = opened(MUG)
    titles(page)
    api.delays = [1.0]
    page.get_by_label("Answers", exact=True).fill("3")
    page.wait_for_timeout(300)
    assert api.delays == []  # the slow one is under way
    page.get_by_label("Answers", exact=True).fill("5")
    page.get_by_role("status").get_by_text("5 answers").wait_for(timeout=800)
    page.wait_for_timeout(1000)
    assert len(titles(page)) == 5


def test_a_dragged_slider_asks_few_questions(opened, api):
    page = opened(MUG)
    titles(page)
    before = len(api.asked)
    page.evaluate("""async () => {
      const slider = document.getElementById("beta");
      for (let i = 0; i < 90; i++) {
        slider.value = i / 100;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        if (i % 10 === 0) await new Promise((done) => setTimeout(done, 10));
      }
    }""")
    settled(page)
    assert len(api.asked) == before + 1
    assert api.asked[-1]["mix"] == {"beta": 0.89}
    assert address(page)["beta"] == ["0.89"]
