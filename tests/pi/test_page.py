from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from pi import page
from pi.digits import pi_text
from pi.style import STYLE

VOID = {"meta", "link", "input"}


class Elements(HTMLParser):
    """The elements, links and text of a page; whether every element is closed in order."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.links: list[str | None] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(body.decode())
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text.append(data)


def _page(decimals: int, most: int = 1_000_000, served_by: str = "one", **times: float) -> Elements:
    facts = page.Facts(decimals, most, served_by, **({"computed": 0.0123, "queued": 0.0} | times))
    return Elements(page.number(page.digits(pi_text(decimals)).encode(), facts))


@pytest.mark.parametrize("decimals", [0, 1, 10, 11, 100, 101, 999, 1000, 1001, 12_345])
def test_the_digits_are_all_there_in_groups_of_ten(decimals: int) -> None:
    main = re.search("<main.*</main>", page.digits(pi_text(decimals)))
    assert main
    shown = re.sub("<[^>]*>", " ", main[0]).split()
    assert "".join(shown) == pi_text(decimals)
    groups = "".join(f" {group}" for group in shown).partition(".")[2].split()
    assert all(len(group) == 10 for group in groups[:-1])


def test_a_million_digits_are_about_a_thousand_elements() -> None:
    assert 1000 <= len(_page(1_000_000).names) < 1100


@pytest.mark.parametrize(
    ("decimals", "links"),
    [
        (0, ["10"]),
        (1, ["0", "10"]),
        (10, ["1", "100"]),
        (1234, ["123", "12340"]),
        (200_000, ["20000", "1000000"]),
        (1_000_000, ["100000"]),
    ],
)
def test_links_lead_to_ten_times_fewer_and_more_within_what_is_allowed(decimals: int, links: list[str]) -> None:
    assert list(dict.fromkeys(_page(decimals).links)) == links


def test_it_tells_who_served_and_how_long_it_took() -> None:
    text = " ".join(_page(10, served_by="pi-3", computed=0.0123, queued=1.5).text)
    assert "Served by pi-3" in text
    assert "Computed in 12 ms" in text
    assert "Waited for a worker 1.50 s" in text


def test_a_name_or_a_path_cannot_put_markup_into_a_page() -> None:
    hostile = "<script>x</script>&\"'"
    for body in (page.start(10, hostile), page.refusal(400, hostile, hostile)):
        elements = Elements(body)
        assert "script" not in elements.names
        assert hostile in "".join(elements.text)
    assert "script" not in _page(10, served_by=hostile).names


@pytest.mark.parametrize("decimals", [10, 100_000])
def test_nothing_is_loaded_from_anywhere(decimals: int) -> None:
    elements = _page(decimals)
    assert not {"script", "img", "iframe", "source"} & set(elements.names)
    addresses = [value for name, value in elements.attributes if name in {"href", "src", "action"}]
    assert all(re.fullmatch(r"\d+|\./|data:.*", address or "") for address in addresses)
    assert "@import" not in STYLE
    assert "url(" not in STYLE


def test_each_server_has_a_colour_of_its_own() -> None:
    hues = {dict(_page(10, served_by=f"pi-{number}").attributes)["style"] for number in range(4)}
    assert len(hues) == 4
