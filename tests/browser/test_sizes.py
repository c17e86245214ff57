"""Every size of screen, many endpoints, and people who do not use a mouse or their eyes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import axe_playwright_python  # type: ignore[import-untyped]
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, ViewportSize, expect
from tests.browser.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js"))
SIZES = [(320, 640), (390, 844), (768, 1024), (1280, 800), (1920, 1080), (3440, 1440)]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crowd() -> AsyncIterator[Stage]:
    """The balancer with 200 endpoints, of which four answer; the others refuse and are ejected at once."""
    async with Stage(200, listening=4, settings={"LB_EJECT_AFTER": "1"}) as made:
        yield made


Opened = Callable[[ViewportSize], Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def opened(browser: Browser) -> AsyncIterator[Opened]:
    """Opens pages, and closes them at the end."""
    pages: list[Page] = []

    async def new(size: ViewportSize) -> Page:
        pages.append(await browser.new_page(viewport=size))
        pages[-1].set_default_timeout(60_000)
        return pages[-1]

    yield new
    for page in pages:
        await page.context.close()


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_nothing_is_cut_off_or_pushed_aside(opened: Opened, stage: Stage, size: tuple[int, int]) -> None:
    page = await opened({"width": size[0], "height": size[1]})
    await page.goto(stage.admin)
    await page.locator(".card").nth(3).wait_for()
    await page.locator(".decisions summary").first.click()
    await page.get_by_text("The latest requests, side by side").click()
    assert await page.evaluate("document.documentElement.scrollWidth") <= size[0]
    shares = "[...document.querySelectorAll('#share-bar span')].filter((each) => each.clientWidth > 80)"
    assert await page.evaluate(f"{shares}.every((each) => each.scrollWidth <= each.clientWidth)"), "a share is cut"
    for name in ("canvas", ".card", ".option", ".figure"):
        for element in await page.locator(name).all():
            box = await element.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size[0] + 1


@pytest.mark.parametrize("width", [390, 1280])
async def test_the_reason_of_a_decision_is_never_cut(opened: Opened, stage: Stage, width: int) -> None:
    page = await opened({"width": width, "height": 800})
    await page.goto(stage.admin)
    await page.locator(".decisions summary .by").first.wait_for()
    # The longest reasons that strategies give.
    cut = await page.evaluate("""() => [...document.querySelectorAll(".decisions summary .by")].filter((node) => {
        node.textContent = "lowest (in flight + 1) / weight: 0.333333, next 0.666667, of 4 endpoints";
        return node.scrollWidth > node.clientWidth + 1;
    }).length""")
    assert cut == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_axe_finds_no_barrier(opened: Opened, stage: Stage, scheme: str, width: int) -> None:
    page = await opened({"width": width, "height": 900})
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.goto(stage.admin)
    await page.locator(".card").nth(3).wait_for()
    await page.locator(".decisions summary").first.click()
    await page.get_by_text("The latest requests, side by side").click()
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run()")
    barriers = [
        f"{each['id']}: {each['help']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]
    assert barriers == []


async def test_two_hundred_endpoints_stay_usable(opened: Opened, crowd: Stage) -> None:
    page = await opened({"width": 1280, "height": 800})
    await page.goto(crowd.admin)
    rows = page.locator("table.endpoints tbody tr")
    await expect(rows).to_have_count(200)
    await page.get_by_label("Show endpoints whose").fill(crowd.endpoints[1].address)
    await expect(rows).to_have_count(1)
    await page.get_by_label("Show endpoints whose").fill("ejected")
    await expect(rows.first).to_contain_text("Ejected")
    await page.get_by_label("Show endpoints whose").fill("")
    await page.get_by_label("Order").select_option("share")
    await expect(rows.first).to_contain_text(re.compile(r"\d %"))
    assert await page.evaluate("document.documentElement.scrollHeight") < 5000


async def test_two_hundred_endpoints_cost_the_browser_little(opened: Opened, crowd: Stage) -> None:
    page = await opened({"width": 1280, "height": 800})
    await page.goto(crowd.admin)
    await expect(page.locator("table.endpoints tbody tr")).to_have_count(200)
    tools = await page.context.new_cdp_session(page)
    await tools.send("Performance.enable")

    async def busy() -> float:
        metrics = {each["name"]: each["value"] for each in (await tools.send("Performance.getMetrics"))["metrics"]}
        return float(metrics["ThreadTime"])

    before = await busy()
    await page.wait_for_timeout(5000)
    assert (await busy() - before) / 5 < 0.3  # CPU seconds a second; a tenth of that on a machine at rest.
