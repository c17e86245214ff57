"""The page in a real Chromium: readable at any width, quick to open at a million digits, nothing to complain of."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright
from tests.pi.conftest import Pi

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = [320, 375, 768, 1280]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package `chromium`, or name another with CHROMIUM=/path")
    async with async_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root.
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, pi: Pi) -> AsyncIterator[Page]:
    """A page on the service's address. Whatever the browser complains of, and any request elsewhere, fails the test."""
    opened = await browser.new_page(base_url=f"http://127.0.0.1:{pi.port}")
    opened.set_default_timeout(60_000)
    complaints: list[str] = []
    requested: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("request", lambda request: requested.append(request.url))
    yield opened
    await opened.close()
    assert complaints == []
    assert [url for url in requested if not url.startswith((f"http://127.0.0.1:{pi.port}/", "data:"))] == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["/", "/0", "/10", "/100", "/1000", "/100000"])
async def test_nothing_is_wider_than_the_screen(page: Page, path: str) -> None:
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 800})
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("width", "groups"), [(320, 4), (375, 4), (768, 5), (1280, 10)])
async def test_rows_are_whole_groups_in_number_that_suits_the_screen(page: Page, width: int, groups: int) -> None:
    await page.set_viewport_size({"width": width, "height": 800})
    await page.goto("/1000")
    first_row = """() => {
        const text = document.querySelector("main p").firstChild, range = document.createRange()
        const top = at => (range.setStart(text, at), range.setEnd(text, at + 1), range.getBoundingClientRect().top)
        let at = 0
        while (top(at + 9) === top(0)) at += 11
        return at / 11
    }"""
    assert await page.evaluate(first_row) == groups


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_follows_light_and_dark(page: Page) -> None:
    lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"
    await page.goto("/10")
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(lightness) > 3 * 200
    await page.emulate_media(color_scheme="dark")
    assert await page.evaluate(lightness) < 3 * 60


@pytest.mark.asyncio(loop_scope="module")
async def test_a_million_digits_are_quick_to_lay_out_and_the_last_ones_are_where_the_scroll_bar_says(
    page: Page,
) -> None:
    await page.set_viewport_size({"width": 1280, "height": 800})
    await page.goto("/1000000")
    laid_out = "performance.getEntriesByType('navigation')[0].toJSON()"
    timing = await page.evaluate(laid_out)
    assert timing["domInteractive"] - timing["responseStart"] < 1500  # 100 ms on a machine that is idle
    height = await page.evaluate("document.documentElement.scrollHeight")
    await page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    last = page.locator("main p").last
    await last.scroll_into_view_if_needed()
    assert (await last.inner_text()).endswith("5779458151")
    assert abs(await page.evaluate("document.documentElement.scrollHeight") - height) < 0.01 * height


@pytest.mark.asyncio(loop_scope="module")
async def test_links_and_form_lead_on(page: Page) -> None:
    await page.goto("/")
    await page.get_by_label("Decimals").fill("25")
    await page.get_by_role("button", name="Show").click()
    await page.wait_for_url("**/25")
    await page.get_by_role("link", name="250 →").first.click()
    await page.wait_for_url("**/250")
    assert await page.get_by_role("heading", level=1).inner_text() == "250 decimals of π"
