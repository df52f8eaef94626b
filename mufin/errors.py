"""The base class of all errors that a user can mend; their texts are one short sentence."""

from __future__ import annotations

from collections.abc import Iterator

LONGEST = 300  # characters of an error sentence
GAP = " ... "  # where a sentence is cut
DIGITS = 100  # of a whole number that is shown; Python refuses to write one of thousands
DEEPEST = 8  # levels of lists and sections that are shown


class MufinError(Exception):
    """What is wrong, the value and the remedy, in one sentence. Stages print it and exit with 1."""


class ArtifactError(MufinError):
    """An artifact is missing, broken or has another format: which, where, and the remedy."""


def shown(value: object, most: int = 80) -> str:
    """The value as Python writes it, for an error text: one line of at most `most` characters.

    Takes time and memory for those characters alone, however large the value is, also where it
    holds the same list many times (YAML's aliases). The end of a longer one is replaced by `...`.
    """
    text = ""
    for part in _written(value, most, 0):
        text += part
        if len(text) > most:
            return text[: max(most - 3, 0)] + "..."
    return text


def escaped(text: str) -> str:
    """The text with `\\x1b` and the like for what is not printed as a character.

    These are control characters (C0, C1, DEL), marks that change the direction of writing, line and
    paragraph separators, and halves of surrogate pairs.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _code(c) for c in text)


def sentence(text: str) -> str:
    """An error text as one line of at most 300 characters, without control characters.

    A longer one is cut in the middle, because its end has the remedy.
    """
    if len(text) > 2 * LONGEST:  # escapes make it longer, never shorter
        text = text[:LONGEST] + GAP + text[-LONGEST:]
    text = escaped(text.strip())
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - len(GAP)) // 2
    return text[:half].rstrip() + GAP + text[-half:].lstrip()


def _written(value: object, most: int, depth: int) -> Iterator[str]:
    """The repr of a value, piece by piece, so that the reader may stop."""
    if isinstance(value, (str, bytes)):
        yield repr(value[: most + 1])
    elif isinstance(value, int) and not isinstance(value, bool):
        yield _number(value)
    elif isinstance(value, (list, tuple, dict, set)) and value:
        opening, closing = {list: ("[", "]"), tuple: ("(", ")")}.get(type(value), ("{", "}"))
        yield opening
        yield from _items(value, most, depth + 1) if depth < DEEPEST else ("...",)
        yield ",)" if isinstance(value, tuple) and len(value) == 1 else closing
    else:
        yield repr(value)


def _items(value: list | tuple | dict | set, most: int, depth: int) -> Iterator[str]:
    for number, item in enumerate(value):
        yield ", " if number else ""
        yield from _written(item, most, depth)
        if isinstance(value, dict):
            yield ": "
            yield from _written(value[item], most, depth)


def _number(value: int) -> str:
    if abs(value).bit_length() <= DIGITS * 3:
        return repr(value)
    return f"a whole number of about {int(value.bit_length() * 0.30103) + 1:,} digits"


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
