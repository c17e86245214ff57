"""A line chart as SVG: a panel for each series over one time axis."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WIDTH, PANEL, MARGIN = 800, 140, 50


@dataclass
class Series:
    """One line: its name with the unit, a value for each moment."""

    name: str
    values: list[float]


def svg(title: str, times: list[float], series: list[Series]) -> str:
    """The chart, with every panel's range from zero to its largest value."""
    height = MARGIN + (PANEL + MARGIN) * len(series)
    span = max(times[-1], 1.0)
    box = f'viewBox="0 0 {WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{MARGIN}" y="24" font-size="16">{escape(title)}</text>',
    ]
    for number, line in enumerate(series):
        top = MARGIN + number * (PANEL + MARGIN)
        most = max(*line.values, 1.0)
        points = " ".join(
            f"{MARGIN + at / span * (WIDTH - 2 * MARGIN):.1f},{top + PANEL - value / most * PANEL:.1f}"
            for at, value in zip(times, line.values, strict=True)
        )
        parts += [
            f'<text x="{MARGIN}" y="{top - 6}">{escape(line.name)}</text>',
            f'<text x="{MARGIN - 6}" y="{top + 10}" text-anchor="end">{most:.0f}</text>',
            f'<text x="{MARGIN - 6}" y="{top + PANEL}" text-anchor="end">0</text>',
            f'<text x="{WIDTH - MARGIN}" y="{top + PANEL + 14}" text-anchor="end">{span:.0f} s</text>',
            f'<path d="M{MARGIN} {top}V{top + PANEL}H{WIDTH - MARGIN}" fill="none" stroke="#888"/>',
            f'<polyline points="{points}" fill="none" stroke="#1f5fbf" stroke-width="1.5"/>',
        ]
    return "\n".join([*parts, "</svg>\n"])
