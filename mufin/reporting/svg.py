"""Drawings as SVG: bars, stacked bars, points of several kinds, arrows between a few vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup, escape

# Okabe & Ito's colours: colour-blind people can tell them apart. Each kind has its own shape too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
GREY, ARROW = "#9aa3ad", "#5b6570"
RAMP = ("#c6dbef", "#8fc1de", "#4b97c9", "#2171b5", "#08306b")  # light to dark: rare to popular
SHAPES = (  # of about equal area, drawn around a point
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "m-2.7-2.7h5.4v5.4h-5.4z",
    "m0-3.7l3.5 6h-7z",
    "m0-3.8l3.2 3.8l-3.2 3.8l-3.2-3.8z",
    "m-1-3.4h2v2.4h2.4v2h-2.4v2.4h-2v-2.4h-2.4v-2h2.4z",
)


def bar(value: float, top: float, colour: str = COLOURS[0]) -> Markup:
    """A bar of `value` of `top`; it fills its box, the number stands beside it as text."""
    return stacked([value], top, (colour,))


def stacked(values: Iterable[float], top: float, colours: Sequence[str] = RAMP) -> Markup:
    """Bars one after another, together at most `top` long."""
    parts, x = [], 0.0
    for value, colour in zip(values, colours):
        width = 100 * max(float(value), 0.0) / top if top > 0 else 0.0
        parts.append(
            f'<rect x="{x:.2f}" width="{max(width - 0.3, 0):.2f}" height="10" fill="{colour}"/>'
        )
        x += width
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )


def mark(kind: int | None) -> Markup:
    """One point of a kind, for a legend; None for the grey rest."""
    return Markup(
        f'<svg class="mark" viewBox="-5 -5 10 10" aria-hidden="true"><path d="M0 0{_shape(kind)}" '
        f'fill="{_colour(kind)}"/></svg>'
    )


def _drawing(kind: str, width: int, height: int, title: str, parts: str) -> Markup:
    """A drawing that fills the width of the page; `title` is what a screen reader says."""
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(title)}</title>{parts}</svg>"
    )


def scatter(points: np.ndarray, kind: np.ndarray, title: str, size: int = 640) -> Markup:
    """`points` (n, 2) in a square, coloured by `kind`.

    `kind` (n,): index into COLOURS and SHAPES; -1 for the grey rest, which is drawn first.
    """
    low, high = points.min(0), points.max(0)
    placed = 8 + (points - low) / max(float((high - low).max()), 1e-12) * (size - 16)
    paths = []
    for number in (-1, *range(len(COLOURS))):
        look = None if number < 0 else number
        d = "".join(f"M{x:.1f} {y:.1f}{_shape(look)}" for x, y in placed[kind == number])
        if d:
            paths.append(f'<path d="{d}" fill="{_colour(look)}" fill-opacity="0.8"/>')
    return _drawing("figure", size, size, title, "".join(paths))


def _shape(kind: int | None) -> str:
    return "m-1.5 0a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0z" if kind is None else SHAPES[kind]


def _colour(kind: int | None) -> str:
    return GREY if kind is None else COLOURS[kind]


def arrows(
    points: np.ndarray,
    names: list[str],
    looks: list[tuple[int, int]],
    moves: list[tuple[int, int]],
    title: str,
) -> Markup:
    """Named `points` (n, 2) on a plane of equal axes, with arrows between some of them.

    `looks`: (shape, colour) of each point. `moves`: (from, to) of each arrow.
    """
    width, height, edge = 360, 280, 46
    low, high = points.min(0), points.max(0)
    scale = min(
        (width - 2 * edge) / max(high[0] - low[0], 1e-9),
        (height - 2 * edge) / max(high[1] - low[1], 1e-9),
    )
    at = np.array([width / 2, height / 2]) + (points - (low + high) / 2) * scale * np.array([1, -1])
    parts = [_arrow(at[a], at[b]) for a, b in moves]
    for number, ((x, y), (shape, colour), name) in enumerate(zip(at, looks, names)):
        dx, dy = 15 * _away(at, moves, number)
        parts.append(
            f'<path d="M{x:.1f} {y:.1f}{SHAPES[shape]}" fill="{COLOURS[colour]}"/>'
            f'<text x="{x + dx:.1f}" y="{y + dy:.1f}">{escape(name)}</text>'
        )
    return _drawing("figure plane", width, height, title, "".join(parts))


def _away(at: np.ndarray, moves: list[tuple[int, int]], number: int) -> np.ndarray:
    """(2,) the direction, of length 1, in which a point's name is clear of its arrows.

    That is upwards for a point without arrows.
    """
    way = np.zeros(2)
    for a, b in moves:
        if number in (a, b):
            own = at[b] - at[a] if b == number else at[a] - at[b]
            way += own / max(float(np.hypot(*own)), 1e-9)
    length = float(np.hypot(*way))
    return way / length if length > 1e-6 else np.array([0.0, -1.0])


def _arrow(start: np.ndarray, end: np.ndarray) -> str:
    """A line with a head that stops short of the point it leads to."""
    way = end - start
    length = float(np.hypot(*way))
    if length < 10:
        return ""
    unit = way / length
    tip = end - unit * 5
    left, right = (tip - unit * 6 + side * 3 * np.array([-unit[1], unit[0]]) for side in (1, -1))
    (x, y), (a, b) = start + unit * 4, tip
    head = f"M{a:.1f} {b:.1f}L{left[0]:.1f} {left[1]:.1f}L{right[0]:.1f} {right[1]:.1f}z"
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{a:.1f}" y2="{b:.1f}" stroke="{ARROW}"/>'
        f'<path d="{head}" fill="{ARROW}"/>'
    )


def shade(weight: float) -> tuple[str, str]:
    """Background and text colour of a cell of weight in [0, 1].

    The text is black or white, whichever has the better contrast (at least 4.5:1).
    """
    part = min(max(weight, 0.0), 1.0)
    mixed = [round(255 + (end - 255) * part) for end in (8, 69, 148)]
    text = "#000000" if luminance(mixed) > 0.179 else "#ffffff"
    return "#{:02x}{:02x}{:02x}".format(*mixed), text


def luminance(rgb: list[int]) -> float:
    """Relative luminance of sRGB bytes (WCAG 2.2)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def curve(points: np.ndarray, title: str) -> Markup:
    """A line through `points` (n, 2) in ascending x, the ends of both axes as numbers."""
    width, height, left, edge = 360, 200, 58, 26
    low, high = points.min(0), points.max(0)
    span = np.maximum(high - low, 1e-12)
    x, y = (points - low).T / span[:, None]
    at = np.stack([left + x * (width - left - edge), edge + (1 - y) * (height - 2 * edge)], 1)
    line = "L".join(f"{a:.1f} {b:.1f}" for a, b in at)
    marks = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in at[:: len(at) // 60 + 1]
    )
    numbers = (
        (left - 8, edge + 4, "end", f"{high[1]:.4g}"),
        (left - 8, height - edge + 4, "end", f"{low[1]:.4g}"),
        (left, height - 6, "middle", f"{low[0]:.4g}"),
        (width - edge, height - 6, "middle", f"{high[0]:.4g}"),
    )
    texts = "".join(f'<text x="{a}" y="{b}" text-anchor="{c}">{d}</text>' for a, b, c, d in numbers)
    path = f'<path d="M{line}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>'
    dots = f'<g fill="{COLOURS[0]}">{marks}</g>'
    return _drawing("figure curve", width, height, title, path + dots + texts)
