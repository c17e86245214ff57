"""Pictures of a study: bars in the terminal, or an SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from balancer.lab.record import Summary

WIDTH: Final = 720
ROW: Final = 34
LEFT: Final = 170
RIGHT: Final = 90
COLOURS: Final = {"p50": "#9ecae1", "p99": "#3182bd", "p99.9": "#08306b"}


def bars(summaries: dict[str, Summary], width: int = 40) -> str:
    """A bar for each strategy's p99, for a terminal."""
    longest = max((summary.p99 for summary in summaries.values()), default=0.0) or 1.0
    lines = []
    for name, summary in summaries.items():
        length = max(1, round(summary.p99 / longest * width))
        lines.append(f"{name:>22} {'█' * length} {summary.p99 * 1000:,.1f} ms")
    return "\n".join(lines)


def svg(summaries: dict[str, Summary], title: str) -> str:
    """p50, p99 and p99.9 of each strategy on one axis that starts at 0."""
    longest = max((summary.p999 for summary in summaries.values()), default=0.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / longest
    height = 76 + ROW * len(summaries)
    size = f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" fill="#222">{escape(title)}</text>',
    ]
    at = LEFT
    for label, colour in COLOURS.items():
        out.append(f'<rect x="{at}" y="30" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{at + 17}" y="40" fill="#444">{label}</text>')
        at += 74
    for i, (name, summary) in enumerate(summaries.items()):
        top = 54 + i * ROW
        out.append(f'<text x="{LEFT - 10}" y="{top + 18}" text-anchor="end" fill="#222">{escape(name)}</text>')
        out.extend(_row(top, scale, (summary.p999, summary.p99, summary.p50)))
        out.append(
            f'<text x="{LEFT + summary.p999 * scale + 6:.1f}" y="{top + 18}" fill="#222">'
            f"{summary.p99 * 1000:,.0f} ms</text>"
        )
    out.append(
        f'<text x="{LEFT}" y="{height - 8}" fill="#666">Beside each bar stands its p99; shorter is better.</text>'
    )
    return "\n".join([*out, "</svg>\n"])


def _row(top: float, scale: float, values: Sequence[float]) -> list[str]:
    colours = list(COLOURS.values())[::-1]
    return [
        f'<rect x="{LEFT}" y="{top + 2 + 4 * i}" width="{max(value * scale, 1):.1f}" height="{22 - 8 * i}" '
        f'fill="{colour}"/>'
        for i, (value, colour) in enumerate(zip(values, colours, strict=True))
    ]
