"""Bar charts as SVG, small enough to be written by hand and read in a diff."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

COLOURS = {
    "lb": "#2563eb",
    "lb-interpreted": "#93c5fd",
    "nginx": "#15803d",
    "haproxy": "#d97706",
    "haproxy-new": "#b91c1c",
    "nginx-new": "#65a30d",
    "haproxy-3": "#7f1d1d",
    "envoy": "#9333ea",
    "traefik": "#0891b2",
    "caddy": "#64748b",
}
_BAR, _GAP, _LEFT, _WIDTH, _TOP = 13, 16, 300, 860, 62


def bars(title: str, rows: Mapping[str, Mapping[str, float]], *, mark: float | None = None) -> str:
    """A group of horizontal bars for each row, one for each program; `mark` is a line to compare with."""
    values = [value for row in rows.values() for value in row.values() if value > 0]
    left = max(_LEFT, 20 + 7 * max(map(len, rows), default=0))  # seven a letter: no name is cut off
    high = max([*values, mark or 0.0]) if values else 1.0
    height = _TOP + sum(_BAR * len(row) + _GAP for row in rows.values()) + 8

    def x(value: float) -> float:
        return left + max(value, 0.0) / high * (_WIDTH - left - 90)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        "<style>text { font-family: sans-serif; font-size: 12px; }",
        ".value { font-size: 10px; fill: #374151; stroke: #ffffff; stroke-width: 3px; paint-order: stroke; }</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" style="font-size: 15px; font-weight: bold" fill="#111827">{escape(title)}</text>',
        *_legend(dict.fromkeys(peer for row in rows.values() for peer in row), left),
    ]
    if mark is not None:
        out.append(
            f'<line x1="{x(mark):.1f}" y1="{_TOP - 6}" x2="{x(mark):.1f}" y2="{height - 8}" stroke="#111827" '
            'stroke-dasharray="4 3"/>'
        )
    top = _TOP
    for name, row in rows.items():
        middle = top + _BAR * len(row) / 2 + 4
        out.append(f'<text x="{left - 10}" y="{middle:.0f}" text-anchor="end" fill="#111827">{escape(name)}</text>')
        for peer, value in row.items():
            out.append(
                f'<rect x="{left}" y="{top}" width="{max(x(value) - left, 1):.1f}" height="{_BAR - 2}" '
                f'fill="{COLOURS.get(peer, "#334155")}"/>'
            )
            label = f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
            out.append(f'<text x="{x(value) + 5:.1f}" y="{top + 10}" class="value">{label}</text>')
            top += _BAR
        top += _GAP
    return "\n".join([*out, "</svg>"]) + "\n"


def _legend(peers: Mapping[str, None], left: int) -> list[str]:
    out: list[str] = []
    for peer in peers:
        out.append(f'<rect x="{left}" y="34" width="12" height="12" fill="{COLOURS.get(peer, "#334155")}"/>')
        out.append(f'<text x="{left + 17}" y="44" fill="#374151">{escape(peer)}</text>')
        left += 32 + 7 * len(peer)
    return out
