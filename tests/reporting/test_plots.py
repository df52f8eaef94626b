"""`dvc plots`: distinct plain titles, templates that fit their data, a page in UTF-8."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / ".dvc/plots"
BUILT_IN = {"simple", "linear"}


def plots() -> dict[str, dict]:
    """{folder/name: definition} of the main pipeline and of the study."""
    out = {}
    for folder in (".", "compare"):
        content = YAML(typ="safe").load((ROOT / folder / "dvc.yaml").read_text())
        for plot in content["plots"]:
            out |= {f"{folder}/{name}": definition for name, definition in plot.items()}
    return out


def test_titles_are_distinct_and_ascii():
    titles = [plot["title"] for plot in plots().values()]
    assert len(titles) >= 8 and len(set(titles)) == len(titles)
    assert all(title.isascii() for title in titles)


@pytest.mark.parametrize("name", plots())
def test_a_plot_has_a_template_whose_fields_are_in_its_file(home, name):
    plot = plots()[name]
    columns = set()
    for axis in ("x", "y"):
        ((file, column),) = plot[axis].items()
        with open(home / Path(name).parent / file, newline="") as table:
            header = next(csv.reader(table))
        assert column in header
        columns |= set(header)
    if plot["template"] not in BUILT_IN:
        template = json.loads((TEMPLATES / f"{plot['template']}.json").read_text())
        assert set(template["data"]["format"]["parse"]) <= columns
        own = {channel.get("field") for channel in template["encoding"].values()}
        own -= {None, "rev"}
        assert {f for f in own if not f.startswith("<DVC_METRIC_")} <= columns
        assert template["data"]["values"] == "<DVC_METRIC_DATA>"
        assert template["title"]["text"] == "<DVC_METRIC_TITLE>"
        assert template["encoding"]["color"]["field"] != "rev"


def test_the_page_declares_utf_8_before_its_scripts():
    page = (TEMPLATES / "page.html").read_text()
    assert page.isascii()
    assert page.index('charset="utf-8"') < page.index("{scripts}") < page.index("{plot_divs}")


@pytest.mark.parametrize("folder", [".dvc", "compare/.dvc"])
def test_both_dvc_projects_have_the_templates_and_the_page(folder):
    assert "html_template = plots/page.html" in (ROOT / folder / "config").read_text()
    names = {path.name for path in (ROOT / folder / "plots").iterdir()}
    used = {f"{plot['template']}.json" for plot in plots().values()}
    assert {"page.html"} | used - {f"{name}.json" for name in BUILT_IN} == names
