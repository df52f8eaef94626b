"""What tests of the page look at, and what they give to it."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from tests.support.fake_products import COLOURS, picture

MUG = "/?p=mug-red-large"
BLUE = {"name": "blue.png", "mimeType": "image/png", "buffer": picture(COLOURS["blue"])}
RED = {"name": "red.png", "mimeType": "image/png", "buffer": picture(COLOURS["red"])}
# A picture that JavaScript of the test gives as a person would; whether the page takes it, in
# place of the browser, which would open a dropped file
GIVE = """([kind, target, bytes, type, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "given", { type }));
  const node = document.querySelector(target);
  const given = { bubbles: true, cancelable: true };
  if (kind === "paste") {
    if (text) data.setData("text/plain", text);
    return !node.dispatchEvent(new ClipboardEvent("paste", { ...given, clipboardData: data }));
  }
  const events = ["dragenter", "dragover", "drop"].map(
    (name) => new DragEvent(name, { ...given, dataTransfer: data }),
  );
  return events.map((event) => !node.dispatchEvent(event)).slice(1).every(Boolean);
}"""


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
