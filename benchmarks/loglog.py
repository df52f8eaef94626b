"""A plot of lines on two logarithmic axes, as an SVG file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b6570", "#8c6d31")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 440, 60, 130, 36, 44
APART = 13  # pixels between the names of two lines

Line = Sequence[tuple[float, float]]


def log_plot(title: str, across: str, lines: Mapping[str, Line]) -> str:
    """The points of each line, joined, its name at its end; the axes have powers of ten."""
    points = [point for line in lines.values() for point in line]
    x_axis = _Axis([x for x, _ in points], LEFT, WIDTH - RIGHT)
    y_axis = _Axis([y for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(across)}</text>",
        *(_grid(x_axis.place(v), v, across=True) for v in x_axis.ticks()),
        *(_grid(y_axis.place(v), v, across=False) for v in y_axis.ticks()),
    ]
    ends = {name: y_axis.place(line[-1][1]) for name, line in lines.items()}
    names = _spread(ends)
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        placed = [(x_axis.place(x), y_axis.place(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        dashes = ' stroke-dasharray="5 3"' if number >= len(COLOURS) else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"{dashes}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{names[name] + 4:.1f}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" '
        f'fill="white"/>\n{body}\n</svg>\n'
    )


class _Axis:
    """Places of positive numbers between two pixels, on a logarithmic scale."""

    def __init__(self, values: list[float], first: float, last: float):
        low, high = math.log10(min(values)), math.log10(max(values))
        room = 0.04 * max(high - low, 0.1)
        self.low, self.high, self.first, self.last = low - room, high + room, first, last

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten; powers of ten alone where these would be many."""
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        steps = (1,) if self.high - self.low > 3 else (1, 2, 5)
        ticks = [step * 10.0**power for power in powers for step in steps]
        return [tick for tick in ticks if self.low <= math.log10(tick) <= self.high]


def _grid(place: float, value: float, across: bool) -> str:
    """A line of the grid and its number."""
    if across:
        line = f'x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
        text = f'x="{place:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle"'
    else:
        line = f'y1="{place:.1f}" y2="{place:.1f}" x1="{LEFT}" x2="{WIDTH - RIGHT}"'
        text = f'x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end"'
    return f'<line {line} stroke="#dde2e7"/><text {text}>{value:g}</text>'


def _spread(places: Mapping[str, float]) -> dict[str, float]:
    """The places moved apart, so that names do not cover each other."""
    out: dict[str, float] = {}
    last = -math.inf
    for name, place in sorted(places.items(), key=lambda entry: entry[1]):
        out[name] = last = max(place, last + APART)
    over = max(0.0, last - (HEIGHT - BOTTOM))
    return {name: place - over for name, place in out.items()}
