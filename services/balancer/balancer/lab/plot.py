"""Pictures of a study: bars in the terminal, or an SVG that needs nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from balancer.lab.record import Summary

WIDTH: Final = 720
ROW: Final = 34
LEFT: Final = 170
"""Where bars begin; further to the right where a strategy of one's own has a long name."""
LETTER: Final = 6.8
"""Width of a letter of a name."""
RIGHT: Final = 120
CUT: Final = 5.0
"""The axis is no longer than so many times the median bar."""
COLOURS: Final = {"p50": "#9ecae1", "p99": "#3182bd", "p99.9": "#08306b"}


def bars(summaries: dict[str, Summary], width: int = 40) -> str:
    """A bar for each strategy's p99, for a terminal."""
    end = _end([summary.p99 for summary in summaries.values()])
    lines = []
    longest = max([22, *map(len, summaries)])
    for name, summary in summaries.items():
        length = max(1, round(min(summary.p99 / end, 1.0) * width))
        cut = " …" if summary.p99 > end else ""
        lines.append(f"{name:>{longest}} {'█' * length}{cut} {summary.p99 * 1000:,.1f} ms")
    return "\n".join(lines)


def _end(values: Sequence[float]) -> float:
    """Where the axis ends: at the longest, or where one is far beyond the others, so that it shows those as well."""
    longest = max(values, default=0.0) or 1.0
    return min(longest, CUT * (statistics.median_low(values) or longest)) if values else longest


def svg(summaries: dict[str, Summary], title: str) -> str:
    """p50, p99 and p99.9 of each strategy on one axis that starts at 0."""
    end = _end([summary.p999 for summary in summaries.values()])
    left = max(LEFT, round(LETTER * max(map(len, summaries), default=0)) + 20)
    width = WIDTH + left - LEFT
    scale = (WIDTH - LEFT - RIGHT) / end
    height = 76 + ROW * len(summaries)
    size = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="20" font-size="14" fill="#222">{escape(title)}</text>',
    ]
    at = left
    for label, colour in COLOURS.items():
        out.append(f'<rect x="{at}" y="30" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{at + 17}" y="40" fill="#444">{label}</text>')
        at += 74
    for i, (name, summary) in enumerate(summaries.items()):
        top = 54 + i * ROW
        out.append(f'<text x="{left - 10}" y="{top + 18}" text-anchor="end" fill="#222">{escape(name)}</text>')
        out.extend(_row(left, top, scale, [min(value, end) for value in (summary.p999, summary.p99, summary.p50)]))
        cut = "… " if summary.p999 > end else ""
        out.append(
            f'<text x="{left + min(summary.p999, end) * scale + 6:.1f}" y="{top + 18}" fill="#222">'
            f"{cut}p99 {summary.p99 * 1000:,.0f} ms</text>"
        )
    caption = "Shorter is better."
    if any(summary.p999 > end for summary in summaries.values()):
        caption += " … : the bar goes on."
    out.append(f'<text x="{left}" y="{height - 8}" fill="#666">{caption}</text>')
    return "\n".join([*out, "</svg>\n"])


def _row(left: float, top: float, scale: float, values: Sequence[float]) -> list[str]:
    colours = list(COLOURS.values())[::-1]
    return [
        f'<rect x="{left}" y="{top + 2 + 4 * i}" width="{max(value * scale, 1):.1f}" height="{22 - 8 * i}" '
        f'fill="{colour}"/>'
        for i, (value, colour) in enumerate(zip(values, colours, strict=True))
    ]
