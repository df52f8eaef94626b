"""The page in a real browser, against a server with the HTTP contract and canned products."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.support.browsers import chromium, faint, nameless
from tests.support.fake_api import BETA, COLOURS, FakeApi, picture, serving

MUG = "/?p=mug-red-large"
BLUE = {"name": "blue.png", "mimeType": "image/png", "buffer": picture(COLOURS["blue"])}
RED = {"name": "red.png", "mimeType": "image/png", "buffer": picture(COLOURS["red"])}
# A picture that JavaScript of the test gives as a person would
GIVE = """([kind, target, bytes, type]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "given", { type }));
  const node = document.querySelector(target);
  const given = { bubbles: true, cancelable: true };
  if (kind === "paste") {
    node.dispatchEvent(new ClipboardEvent("paste", { ...given, clipboardData: data }));
  } else {
    for (const name of ["dragenter", "dragover", "drop"])
      node.dispatchEvent(new DragEvent(name, { ...given, dataTransfer: data }));
  }
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def server():
    with serving() as one:
        yield one


@pytest.fixture
def api(server: FakeApi) -> FakeApi:
    server.reset()
    return server


class Window:
    """A page that is watched: what it wrote to the console, and where it sent requests."""

    def __init__(self, browser, api: FakeApi, **options):
        given = {"viewport": {"width": 1280, "height": 800}} | options
        self.context = browser.new_context(base_url=api.url, **given)
        self.context.set_default_timeout(5000)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._went(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "Failed to load resource" not in text:
            self.errors.append(text)

    def _went(self, url: str) -> None:
        if not url.startswith(("blob:", "data:")):
            self.hosts.add(urlsplit(url).netloc)


@pytest.fixture
def opened(browser, api):
    """Opens windows; at the end, none has had an error or asked another host."""
    windows: list[Window] = []

    def open_(path: str = "/", **options):
        windows.append(Window(browser, api, **options))
        page = windows[-1].page
        page.goto(path)
        if path == "/":
            page.get_by_role("button", name="Mug, red, small").wait_for()
        return page

    yield open_
    for window in windows:
        window.context.close()
        assert window.errors == []
        assert window.hosts <= {urlsplit(api.url).netloc}


def cards(page):
    return page.locator("#cards > .card:not(.skeleton)")


def titles(page) -> list[str]:
    """The titles of the answers, as soon as no question is under way."""
    page.locator("#results[aria-busy=false]").wait_for()
    cards(page).first.wait_for()
    return page.locator("#cards h3 a").all_inner_texts()


def settled(page) -> None:
    """Waits until a change that was just made has been asked and answered."""
    page.wait_for_timeout(30)
    page.locator("#results[aria-busy=false]").wait_for()


def heading(page, text: str) -> None:
    page.get_by_role("heading", level=2, name=text, exact=True).wait_for()


def address(page) -> dict[str, list[str]]:
    page.wait_for_timeout(300)  # the page writes it a moment after a change
    return parse_qs(urlsplit(page.url).query)


# Asking


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


# A product that is not in the catalog


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


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_pictures_are_taken_from(opened, api, kind):
    page = opened()
    page.evaluate(GIVE, [kind, "main", list(BLUE["buffer"]), "image/png"])
    page.get_by_role("button", name="Remove picture 1, given").wait_for()
    settled(page)
    assert "blue" in titles(page)[0] and api.asked[-1]["uploads"] == 1


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


# Settings


def test_modalities_change_the_answers(opened, api):
    page = opened("/?p=mug-red-large&k=3&beta=0")
    before = titles(page)
    page.get_by_label("Pictures", exact=True).uncheck()
    settled(page)
    assert api.asked[-1]["modalities"] == ["text", "lexical"]
    assert titles(page) != before
    page.get_by_role("checkbox", name="Title").uncheck()
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
    page.evaluate("""() => {
      const slider = document.getElementById("beta");
      for (let i = 0; i < 90; i++) {
        slider.value = i / 100;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
      }
    }""")
    settled(page)
    assert len(api.asked) == before + 1
    assert api.asked[-1]["mix"] == {"beta": 0.89}
    assert address(page)["beta"] == ["0.89"]


# Answers


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


# The address


FULL = {
    "p": ["mug-red-large", "odd/id ?&#"],
    "avoid": ["lamp-green-small"],
    "title": ["A “new” thing & more"],
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
    page.get_by_label("Answers", exact=True).fill("6")
    page.get_by_role("button", name="Copy link").click()
    settled(page)
    view = "document.querySelector('main').innerText.replace(/[\\d.]+ ms/, '')"
    state = "[...document.querySelectorAll('main input')].map((i) => [i.value, i.checked].join())"
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


# Errors


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


# For everyone


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


# The catalog


def test_a_product_is_added_changed_and_removed(opened, api):
    page = opened(MUG)
    titles(page)
    page.get_by_role("button", name="Edit catalog").click()
    form = page.get_by_role("dialog", name="Add, change or remove a product")
    form.get_by_label("Id", exact=True).fill("mug new/1")
    form.get_by_label("Title").fill("Mug, red, huge")
    form.get_by_label("Category").fill("Kitchen > Mugs")
    form.get_by_label("price").fill("12.5")
    form.get_by_label("in_stock").select_option("no")
    form.get_by_label("choose pictures").set_input_files([RED])
    form.get_by_role("button", name="Save").click()
    form.get_by_text("mug new/1 is added; it can be an answer from now on.").wait_for()
    put = {"title": "Mug, red, huge", "category": ["Kitchen", "Mugs"], "uploads": 1}
    put["attributes"] = {"price": 12.5, "in_stock": False}
    assert api.changed == [("PUT", "mug new/1", put)]
    form.get_by_role("button", name="Close").click()
    settled(page)
    assert "Mug, red, huge" in titles(page)  # asked again by itself

    page.get_by_role("button", name="Change or remove Mug, red, huge").click()
    form.get_by_text("This is what the server has.").wait_for()
    assert form.get_by_label("Title").input_value() == "Mug, red, huge"
    form.get_by_label("Title").fill("Mug, red, giant")
    form.get_by_role("button", name="Save").click()
    sure = page.get_by_role("dialog", name="Replace mug new/1 by what the form says?")
    sure.get_by_role("button", name="Cancel").click()
    page.wait_for_timeout(100)
    assert len(api.changed) == 1
    form.get_by_role("button", name="Save").click()
    sure.get_by_role("button", name="Replace").click()
    form.get_by_text("mug new/1 is changed").wait_for()
    assert api.changed[1] == ("PUT", "mug new/1", put | {"title": "Mug, red, giant"})

    form.get_by_role("button", name="Remove from the catalog").click()
    sure = page.get_by_role("dialog", name="Remove mug new/1 from the catalog?")
    page.keyboard.press("Escape")  # which means no
    page.wait_for_timeout(100)
    assert len(api.changed) == 2
    form.get_by_role("button", name="Remove from the catalog").click()
    sure.get_by_role("button", name="Remove").click()
    form.get_by_text("mug new/1 is removed.").wait_for()
    assert api.changed[2] == ("DELETE", "mug new/1", {})
    form.get_by_role("button", name="Close").click()
    settled(page)
    assert not {"Mug, red, giant", "Mug, red, huge"} & set(titles(page))


def test_removing_an_unknown_product_says_so(opened, api):
    page = opened()
    page.get_by_role("button", name="Edit catalog").click()
    form = page.get_by_role("dialog", name="Add, change or remove a product")
    form.get_by_role("button", name="Remove from the catalog").click()
    form.get_by_text("Give the id of a product.").wait_for()
    form.get_by_label("Id", exact=True).fill("nobody")
    form.get_by_role("button", name="Remove from the catalog").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    form.get_by_text("there is no such product.").wait_for()
