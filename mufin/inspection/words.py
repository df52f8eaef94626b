"""Lines of a report: a label, then sentences and counts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

INDENT = 20  # columns of the labels
WIDTH = 100


def line(label: str, text: str) -> Iterator[str]:
    """The text beside its label, wrapped."""
    lines = textwrap.wrap(text, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines or [""]):
        yield f"{label if not number else '':<{INDENT}}{line}".rstrip()


def counted(count: int, of: int, what: str, example: str = "") -> str:
    """`12 of 400 (3 %) without a title, such as 'A1'`."""
    share = 100 * count / max(of, 1)
    text = f"{count:,} of {of:,} ({percent(share)}) {what}"
    return text + (f", such as {example}" if example and count else "")


def percent(share: float) -> str:
    if 0 < share < 0.1:
        return "under 0.1 %"
    if 99.9 < share < 100:
        return "over 99.9 %"
    return f"{share:.1f} %" if share % 1 and share < 99.95 else f"{share:.0f} %"
