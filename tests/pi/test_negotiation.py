from __future__ import annotations

import pytest

from pi.negotiation import prefers_html


@pytest.mark.parametrize(
    "accept",
    [
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "text/html",
        "TEXT/HTML",
        "text/html, application/xhtml+xml, */*",
        "text/plain;q=0.5, text/html",
        "text/plain;q=0.5, */*",
        "text/plain;q=0, text/*",
        "text/html;level=1;q=0.7, text/plain; q=0.3",
    ],
)
def test_a_client_that_prefers_html_gets_the_page(accept: str) -> None:
    assert prefers_html(accept)


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "",
        "text/*",
        "text/plain",
        "text/plain, text/html",
        "text/html;q=0.5, text/plain",
        "text/html;q=0.5, */*",
        "text/html;q=0",
        "text/html;q=nonsense",
        "application/json",
        "text/htm",
        ",;,q=1",
    ],
)
def test_all_others_get_text(accept: str) -> None:
    assert not prefers_html(accept)
