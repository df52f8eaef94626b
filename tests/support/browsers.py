"""Chromium of this system, and what a page says of itself: names, contrast, errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SPEAKING = {"button", "link", "checkbox", "radio", "textbox", "combobox", "slider", "spinbutton"}
SPEAKING |= {"listbox", "option", "dialog", "image", "searchbox", "region", "complementary"}
# The least contrast of each text that is shown, against what is behind it (WCAG 2.2)
CONTRAST = """() => {
  const channels = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((c, i) => a * c + (1 - a) * below[i]);
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      layers.unshift(colour);
      if ((colour[3] ?? 1) === 1) break;
    }
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => {
      const s = c / 255;
      return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const out = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const field = element.matches("input, textarea, select");
    if (!(own || field) || !element.checkVisibility({ opacityProperty: true })) continue;
    const ground = behind(element);
    const style = getComputedStyle(element);
    const ink = element.closest("svg") ? style.fill : style.color;
    const [red, green, blue, alpha = 1] = channels(ink);
    let opacity = alpha;
    for (let e = element; e; e = e.parentElement) opacity *= getComputedStyle(e).opacity;
    const [a, b] = [over([red, green, blue, opacity], ground), ground].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const what = `${element.tagName} ${element.classList} ${element.textContent}`;
    out.push([ratio, what.slice(0, 80)]);
  }
  return out;
}"""


@contextmanager
def chromium() -> Iterator:
    """A browser without a window; skips the test where none is installed."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser is installed; install one of {', '.join(NAMES)}")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def nameless(page) -> list[str]:
    """The roles of what a screen reader stops at without a name to say."""
    client = page.context.new_cdp_session(page)
    nodes = client.send("Accessibility.getFullAXTree")["nodes"]
    said = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    assert len(said) > 20
    return [role for role, name in said if role in SPEAKING and not name.strip()]


def faint(page, least: float = 4.5) -> list:
    """The texts that have less contrast than `least`."""
    measured = page.evaluate(CONTRAST)
    assert len(measured) > 10
    return [found for found in measured if found[0] < least]
