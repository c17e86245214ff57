"""Lines over the load, a panel for each fleet, as SVG; from milliseconds to seconds, so the axis is logarithmic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from benchmarks.plot import COLOURS

_ACROSS = 4
_WIDE, _HIGH = 215, 190
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 30, 6, 22
_HEAD = 40
_STEPS = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5)]

Lines = Mapping[str, Mapping[float, float]]
"""Values by load (a share of capacity), for each program."""


def panels(title: str, fleets: Mapping[str, Lines]) -> str:
    """One panel for each of `fleets`, all with the same axes, and a legend after the last."""
    values = [value for lines in fleets.values() for line in lines.values() for value in line.values()]
    low = max(step for step in _STEPS if step <= min(values))
    high = min(step for step in _STEPS if step >= max(values))
    programs = list(dict.fromkeys(name for lines in fleets.values() for name in lines))
    rows = math.ceil((len(fleets) + 1) / _ACROSS)
    width, height = _ACROSS * _WIDE + 10, _HEAD + rows * _HIGH
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        "<style>text { font-family: sans-serif; font-size: 11px; fill: #374151; }</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" style="font-size: 15px; font-weight: bold; fill: #111827">{escape(title)}</text>',
    ]
    for number, (name, lines) in enumerate(fleets.items()):
        left, top = _place(number)
        out += [f'<g transform="translate({left} {top})">', *_panel(name, lines, programs, low, high), "</g>"]
    left, top = _place(len(fleets))
    for number, program in enumerate(programs):
        y = top + _TOP + 8 + 19 * number
        out.append(_line([(left + _LEFT, y), (left + _LEFT + 24, y)], program))
        out.append(f'<text x="{left + _LEFT + 32}" y="{y + 4}">{escape(program)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _place(number: int) -> tuple[int, int]:
    return number % _ACROSS * _WIDE, _HEAD + number // _ACROSS * _HIGH


def _panel(name: str, lines: Lines, programs: list[str], low: float, high: float) -> list[str]:
    loads = sorted({load for line in lines.values() for load in line})
    inner = _WIDE - _LEFT - _RIGHT

    def x(load: float, program: str) -> float:
        # Side by side, so that equal values do not hide each other.
        return (
            _LEFT + inner * (loads.index(load) + 0.5) / len(loads) + 4 * (programs.index(program) - len(programs) / 2)
        )

    def y(value: float) -> float:
        return _HIGH - _BOTTOM - (_HIGH - _TOP - _BOTTOM) * math.log(value / low) / math.log(high / low)

    out = [f'<text x="{_LEFT}" y="{_TOP - 9}" style="font-weight: bold">{escape(name)}</text>']
    for tick in _STEPS:
        if low <= tick <= high:
            strong = "#d1d5db" if math.log10(tick).is_integer() else "#f3f4f6"
            out.append(f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDE - _RIGHT}" stroke="{strong}"/>')
            label = f"{tick:g} ms" if tick < 1000 else f"{tick / 1000:g} s"
            if math.log10(tick).is_integer() or high / low < 30:
                out.append(
                    f'<text x="{_LEFT - 4}" y="{y(tick) + 3:.1f}" text-anchor="end" '
                    f'style="font-size: 9px">{label}</text>'
                )
    for number, load in enumerate(loads):
        middle = _LEFT + inner * (number + 0.5) / len(loads)
        out.append(f'<text x="{middle:.1f}" y="{_HIGH - 6}" text-anchor="middle">{load:.0%}</text>')
    # Ours is drawn last, above the others.
    for program, line in sorted(lines.items(), key=lambda item: (item[0] == "lb", item[0])):
        points = [(x(load, program), y(value)) for load, value in sorted(line.items())]
        out.append(_line(points, program))
    return out


def _line(points: list[tuple[float, float]], program: str) -> str:
    colour = COLOURS.get(program, "#9ca3af")
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    width, dashes = ("2.5", "") if program == "lb" else ("1.5", "" if program in COLOURS else ' stroke-dasharray="4 3"')
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8" fill="{colour}"/>' for x, y in points)
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>{dots}'
