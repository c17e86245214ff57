"""Routes and clusters on the dashboard: found by text, and thousands of them freeze nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from tests.balancer.admin.test_routes import Port, many
from tests.balancer.admin.world import World

from balancer.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """The dashboard of a balancer with 5,000 routes of a Gateway."""
    settings = {"backends": "10.0.0.1:8000", "admin_port": 0, "gateway_class": "lb", "own_service": "lb"}
    world = World(Settings.model_validate(settings))
    world.ports.append(Port("infra/web", 80, False, many(5000)))
    await world.admin.start()
    opened = await browser.new_page(viewport={"width": 390, "height": 844})
    await opened.goto(f"http://127.0.0.1:{world.admin.port}")
    yield opened
    await opened.close()
    await world.admin.stop()


async def test_thousands_of_routes_are_found_by_text_and_the_page_holds_few(page: Page) -> None:
    rows = page.locator("#routes tbody tr")
    await expect(page.locator("#routes-count")).to_have_text("5,000, the first 100 shown")
    await expect(page.locator("#listeners")).to_contain_text("infra/web:80, 5,000 routes")
    await expect(rows).to_have_count(100)
    await expect(page.get_by_role("region", name="Routes", exact=True)).to_have_count(
        1
    )  # Its table has a name of its own.
    await page.get_by_label("Show routes and clusters").fill("h4999.example")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text(re.compile(r"h4999\.example\.com.*/v1….*HTTPRoute a/r4999.*a/s4999:80"))
    await page.get_by_label("Show routes and clusters").fill("nothing")
    await expect(page.locator("#routes")).to_have_text("No route contains that.")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390


async def test_without_gateways_no_route_is_spoken_of(page: Page, browser: Browser) -> None:
    world = World(Settings.model_validate({"backends": "10.0.0.1:8000", "admin_port": 0}))
    await world.admin.start()
    await page.goto(f"http://127.0.0.1:{world.admin.port}")
    await page.locator(".live[data-state=live]").wait_for()
    await expect(page.get_by_role("heading", name="Routes")).to_be_hidden()
    await world.admin.stop()
