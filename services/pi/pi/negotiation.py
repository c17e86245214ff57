"""Which of the two representations a client prefers (RFC 9110, section 12.5.1)."""

from __future__ import annotations


def prefers_html(accept: str) -> bool:
    """Whether a client that sends this `Accept` field would rather have `text/html` than `text/plain`.

    The quality of a type is that of the most specific range that matches it. Equal qualities go to the type that the
    client named more specifically (a browser's `text/html, */*` means the page), and then to plain text, so that
    curl's `*/*`, and no field at all, get text.
    """
    return _preference(accept, "text/html") > _preference(accept, "text/plain")


def _preference(accept: str, media_type: str) -> tuple[float, int]:
    """Quality from 0 to 1, and how specific the range was that gave it: 2 by name, 1 `text/*`, 0 `*/*`."""
    specificities = {media_type: 2, "text/*": 1, "*/*": 0}
    best, quality = -1, 0.0
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        specificity = specificities.get(name, -1)
        if specificity > best:
            best, quality = specificity, _quality(parameters)
    return (quality, best) if quality > 0 else (0.0, -1)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
