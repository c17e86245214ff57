"""What a client would rather have, by the weights of its Accept and Accept-Encoding (RFC 9110 §12.4.2, §12.5).

The weight of a type is that of the most specific range that matches it: `text/plain`, then `text/*`, then `*/*`. What
no range matches has weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BY_NAME: Final = 2
"""How specific a range is that names a type whole."""


@dataclass(frozen=True, slots=True)
class Range:
    """One member of an Accept field."""

    name: str
    """In lower case: `text/plain`, `text/*`, `*/*`; of Accept-Encoding `gzip`, `*`."""
    parameters: dict[str, str]
    """Without the weight; names in lower case."""
    weight: float
    """From 0 (never) to 1."""


def ranges(field: str) -> list[Range]:
    """The members of an Accept or Accept-Encoding field, in their order; a weight that is no number counts as 0."""
    found = []
    for member in _split(field, ","):
        name, *words = _split(member, ";")
        parameters = {}
        for word in words:
            key, _, value = word.partition("=")
            parameters[key.strip().lower()] = value.strip().strip('"')
        if name.strip():
            weight = _weight(parameters.pop("q", "1"))
            found.append(Range(name.strip().lower(), parameters, weight))
    return found


def preference(accepted: list[Range], media_type: str) -> tuple[float, int]:
    """The weight of `media_type`, and how specific the range was that gave it: BY_NAME, 1, 0, or -1 for none.

    Of several ranges that are equally specific the heaviest counts.
    """
    names = {media_type: BY_NAME, media_type.partition("/")[0] + "/*": 1, "*/*": 0}
    best = (-1, 0.0)
    for each in accepted:
        best = max(best, (names.get(each.name, -1), each.weight))
    specific, weight = best
    return (weight, specific) if specific >= 0 else (0.0, -1)


def prefers_json(accept: str) -> bool:
    """Whether an error should be problem+json: the client names a JSON type, with no less weight than plain text."""
    accepted = ranges(accept)
    json = max((each.weight for each in accepted if "json" in each.name), default=0.0)
    return json > 0.0 and json >= preference(accepted, "text/plain")[0]


def coding(accept_encoding: str) -> str:
    """`gzip` or `deflate` where the client takes one no less gladly than the plain text; else empty."""
    accepted = {each.name: each.weight for each in ranges(accept_encoding)}
    plain = accepted.get("identity", 0.0)
    for name in ("gzip", "deflate"):
        weight = accepted.get(name, accepted.get("*", 0.0))
        if weight > 0.0 and weight >= plain:
            return name
    return ""


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value <= 1.0 else float(value > 1.0)


def _split(text: str, mark: str) -> list[str]:
    """The parts between the `mark`s that stand outside of quotes."""
    if '"' not in text:
        return text.split(mark)
    parts, quoted, escaped = [""], False, False
    for letter in text:
        if letter == mark and not quoted:
            parts.append("")
            continue
        if letter == '"' and not escaped:
            quoted = not quoted
        escaped = quoted and letter == "\\" and not escaped
        parts[-1] += letter
    return parts
