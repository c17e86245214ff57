"""The pages for people: pure functions from facts to HTML that loads nothing from anywhere.

A million digits, an element for each group of ten, would be a hundred thousand elements: seconds of layout. Here a
thousand digits are one element with one text, spaces set the groups apart, and `content-visibility: auto` spares the
browser the layout of what is not in view. The height of each element is known beforehand, so the scroll bar is right.
"""

from __future__ import annotations

import html
import zlib
from dataclasses import dataclass

from pi.style import STYLE

GROUP = 10
"""Digits in a group."""

BLOCK = 1000
"""Digits in an element: whole rows at 10, 5, 4 and 2 groups a row."""

_LARGE = 100
"""Up to so many decimals are shown in large type."""

_FEWEST_COUNTED = 1000
"""From so many decimals on, the page shows how often each digit occurs."""

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' "
    "rx='7' fill='%234353b8'/%3E%3Cpath d='M6 12q2-3 5-3h15M12 9v9q0 5-3 6M21 9v11q0 4 4 3' fill='none' stroke='white' "
    "stroke-width='3' stroke-linecap='round'/%3E%3C/svg%3E"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page tells beside the digits. `most` is the largest number of decimals allowed; times in seconds."""

    decimals: int
    most: int
    served_by: str
    computed: float
    queued: float


def digits(text: str) -> str:
    """The digits of `text` (`3.1415…`) as the main part of the page.

    A worker process makes it: for a million digits it takes some hundredths of a second, too long for an event loop.
    """
    whole, _, decimals = text.partition(".")
    if len(decimals) <= _LARGE:
        groups = " ".join(_groups(decimals))
        return f'<main class="large" aria-label="The number">{whole}{"." if groups else ""}{groups}</main>'
    blocks = [_block(decimals, start) for start in range(0, len(decimals), BLOCK)]
    counted = _occurrences(decimals) if len(decimals) >= _FEWEST_COUNTED else ""
    kind = "blocks" if len(blocks) > 1 else "block"
    return f'{counted}<main class="{kind}" aria-label="The number"><b>{whole}.</b>{"".join(blocks)}</main>'


def number(main: bytes, facts: Facts) -> bytes:
    """The page for /N, around the main part that `digits` made."""
    waited = f"<div><dt>Waited for a worker</dt><dd>{_duration(facts.queued)}</dd></div>"
    head = (
        f"<header><h1>{_counted(facts.decimals)} of <i>π</i></h1><dl>"
        f"<div><dt>Served by</dt><dd><mark>{html.escape(facts.served_by)}</mark></dd></div>"
        f"<div><dt>Computed in</dt><dd>{_duration(facts.computed)}</dd></div>"
        f"{waited if facts.queued >= 0.001 else ''}</dl>{_links(facts)}</header>"
    )
    foot = f"<footer>{_links(facts) if facts.decimals > BLOCK else ''}{_form(facts.most)}</footer>"
    return _document(f"{_counted(facts.decimals)} of Pi", facts.served_by, head, main, foot)


def start(most: int, served_by: str) -> bytes:
    """The page for /: what to ask for."""
    examples = [count for count in (10, 100, 1000, 10_000, 100_000, 1_000_000) if count <= most]
    links = "".join(f'<a href="{count}">{count:,}</a>' for count in examples)
    head = (
        "<header><h1>The decimals of <i>π</i></h1>"
        f"<p>Ask for <code>/N</code> to see the first N of them, computed for you alone: N is at most {most:,}.</p>"
        f"<nav aria-label='Examples'>{links}</nav>{_form(most)}</header>"
    )
    return _document("The decimals of Pi", served_by, head, b"", _served(served_by))


def refusal(status: int, reason: str, served_by: str) -> bytes:
    """The page for a request that is not answered with digits."""
    head = f"<header><h1>{status}</h1><p>{html.escape(reason)}</p><nav><a href='./'>Start again</a></nav></header>"
    return _document(str(status), served_by, head, b"", _served(served_by))


def _groups(decimals: str) -> list[str]:
    return [decimals[at : at + GROUP] for at in range(0, len(decimals), GROUP)]


def _block(decimals: str, start: int) -> str:
    return f'<p data-at="{start + 1:,}">{" ".join(_groups(decimals[start : start + BLOCK]))}</p>'


def _occurrences(decimals: str) -> str:
    """How often each digit occurs: bars up or down from the tenth that each would have if all were equally frequent."""
    excesses = [decimals.count(str(digit)) / len(decimals) - 0.1 for digit in range(10)]
    largest = max(map(abs, excesses)) or 1.0
    places = 1 if len(decimals) < 10_000 else 2
    bars = "".join(
        f'<li style="--size:{abs(excess) / largest:.3f};--over:{excess / largest:.3f}">'
        f"<b>{digit}</b><span>{100 * (excess + 0.1):.{places}f}</span></li>"
        for digit, excess in enumerate(excesses)
    )
    return f"<section><h2>How often each digit occurs, in %, beside one in ten</h2><ol>{bars}</ol></section>"


def _links(facts: Facts) -> str:
    fewer, more = facts.decimals // 10, min(max(facts.decimals, 1) * 10, facts.most)
    left = f'<a href="{fewer}" rel="prev">← {fewer:,}</a>' if facts.decimals else ""
    right = f'<a href="{more}" rel="next">{more:,} →</a>' if more > facts.decimals else "<span>that is the most</span>"
    return f'<nav aria-label="Fewer or more digits">{left}{right}</nav>'


def _form(most: int) -> str:
    return (
        '<form action="./"><label>Decimals <input name="decimals" type="number" inputmode="numeric" required min="0" '
        f'max="{most}" placeholder="up to {most:,}"></label><button>Show</button></form>'
    )


def _served(served_by: str) -> str:
    return f"<footer><p>Served by <mark>{html.escape(served_by)}</mark></p></footer>"


def _document(title: str, served_by: str, head: str, main: bytes, foot: str) -> bytes:
    hue = zlib.crc32(served_by.encode()) % 360  # a colour for each server: one sees at once who served a page
    before = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="{_ICON}"><style>{STYLE}</style></head>'
        f'<body style="--hue:{hue}">{head}'
    )
    return b"".join((before.encode(), main, f"{foot}</body></html>\n".encode()))


def _counted(decimals: int) -> str:
    return "1 decimal" if decimals == 1 else f"{decimals:,} decimals"


def _duration(seconds: float) -> str:
    """Three digits or fewer, and the unit that suits: `340 µs`, `12 ms`, `1.27 s`."""
    if seconds < 0.001:
        return f"{1e6 * seconds:.0f} µs"
    return f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
