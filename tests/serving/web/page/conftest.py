"""One browser and one server for all tests of the page, and a watched window for each."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from tests.support.fake_api import FakeApi, serving


@pytest.fixture(scope="package")
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
