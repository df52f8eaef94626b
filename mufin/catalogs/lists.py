"""Lists that files have as one text: `["a", "b"]`, `['a', 'b']`, `a|b`, `a, b`."""

from __future__ import annotations

import ast
import json
import re
from typing import Literal

Kind = Literal["id", "image", "text"]

STRING = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
# A token of a list as Python or numpy writes it: a quoted text, or a number or word.
TOKEN = re.compile(rf"\s*(?:({STRING})|([^\s,\[\](){{}}'\"]+)|(,))\s*", re.S)
WORD = re.compile(r"[+-]?\d[\d.eE+-]*|None|nan|NaN|null|True|False")
IDS = re.compile(r"[|,;\n]")
# A URL and a file name may have a comma or a semicolon: it separates where the next image begins
# as a URL does, or, between paths, after the ending of a file name.
URLS = re.compile(r"\||[,;\s]\s*(?=(?:https?:)?//|data:image/)", re.I)
DATA = re.compile(r"\||[,;\s]\s*(?=https?://|data:image/)", re.I)  # base64 may have `//`
PATHS = re.compile(
    r"\||\n|(?<=\.jpg|\.png|\.gif|\.bmp|\.tif)[,;]|(?<=\.jpeg|\.webp|\.avif|\.heic|\.tiff)[,;]",
    re.I,
)
TEXTS = re.compile(r"\||\n| > ")


def parts(text: str, kind: Kind) -> list | None:
    """The items of a list that is written in one text; None for a list that is broken.

    A text that begins with `[` is a JSON list, or a list as Python or numpy writes it; numbers stay
    numbers. In other texts, `|` and line breaks separate the items, and

    - ids: also `,` and `;`
    - images: also `,`, `;` and blanks before `http://`, `https://`, `//` or `data:image/`; between
      paths, `,` and `;` after the ending of a picture file, such as `.jpg`
    - texts (categories): also ` > `, but no commas, which names have
    """
    text = text.strip()
    if text.startswith("["):
        return _listed(text)
    if kind == "text":
        return TEXTS.split(text)
    if "," not in text and ";" not in text and len(text.split(None, 1)) < 2:
        return text.split("|")
    if kind == "id":
        return IDS.split(text)
    if text[:5].lower() == "data:":
        return DATA.split(text)
    return (URLS if "//" in text else PATHS).split(text)


def _listed(text: str) -> list | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _tokens(text)
    return value if isinstance(value, list) else None


def _tokens(text: str) -> list | None:
    """The items of `['a', 'b']`, of numpy's `['a' 'b']` and of `[1 2 nan]`; None for others."""
    if not text.endswith("]"):
        return None
    items: list = []
    at, end = 1, len(text) - 1
    while at < end:
        found = TOKEN.match(text, at, end)
        if found is None:
            return None if text[at:end].strip() else items
        at = found.end()
        quoted, word, _ = found.groups()
        if quoted:
            try:
                items.append(ast.literal_eval(quoted))
            except (ValueError, SyntaxError):
                return None
        elif word:
            if not WORD.fullmatch(word):
                return None
            items.append(word)
    return items
