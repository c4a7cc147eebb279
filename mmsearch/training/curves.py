"""The plot of a run as an SVG, written by hand: two panels of lines do not need a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 360, 220, 50, 30, 190
_COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#8d5a97", "#e09f3e", "#444444")


def write_curves(path: Path, left: Mapping[str, Sequence[float]], right: Mapping[str, Sequence[float]]) -> None:
    """Draws one panel for each mapping of line name to its value in every epoch."""
    panels = [_panel(lines, _LEFT + place * (_WIDTH + _GAP)) for place, lines in enumerate((left, right))]
    size = f'width="{2 * (_WIDTH + _GAP) + _LEFT}" height="{_HEIGHT + 80}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    path.write_text("\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *panels, "</svg>\n"]))


def _panel(lines: Mapping[str, Sequence[float]], x0: int) -> str:
    values = [value for line in lines.values() for value in line]
    low, high = min(values, default=0.0), max(values, default=1.0)
    high = high if high > low else low + 1
    epochs = max((len(line) for line in lines.values()), default=1)

    def at(epoch: int, value: float) -> str:
        x = x0 + _WIDTH * (epoch / max(1, epochs - 1))
        return f"{x:.1f},{_TOP + _HEIGHT * (high - value) / (high - low):.1f}"

    parts = [f'<rect x="{x0}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>']
    parts += [
        f'<text x="{x0 - 5}" y="{_TOP + 4 + _HEIGHT * (1 - part):.0f}" text-anchor="end">'
        f"{low + part * (high - low):.3g}</text>"
        for part in (0, 0.5, 1)
    ]
    parts.append(f'<text x="{x0 + _WIDTH}" y="{_TOP + _HEIGHT + 16}" text-anchor="end">epoch {epochs}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(at(epoch, value) for epoch, value in enumerate(line))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x0 + _WIDTH + 6}" y="{_TOP + 12 + 15 * number}" fill="{colour}">{escape(name)}</text>')
    return "\n".join(parts)
