"""Replicas on the dashboard: all together, one by one, and what is wrong with one that hangs or vanishes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from tests.browser.stage import TOKEN, Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")


FIGURES = """() => [...document.querySelectorAll(".replicas td:nth-child(3), .figure:first-child .value")]
    .sort((a, b) => a.matches(".value") - b.matches(".value")).map((node) => Number(node.textContent))"""
"""Requests a second: of each replica, of all, and what the page shows large. All are of the same moment."""


@pytest_asyncio.fixture(loop_scope="session")
async def replicas() -> AsyncIterator[tuple[Stage, Stage]]:
    """Two replicas that know of each other, over the same endpoints, with twenty requests a second each."""
    settings = [{"HOSTNAME": f"lb-{number}", "LB_PEERS_TOKEN": "for-replicas-alone"} for number in range(2)]
    first, second = Stage(3, settings=settings[0]), Stage(0, settings=settings[1])
    peers = ",".join(stage.admin.removeprefix("http://") for stage in (first, second))
    backends = ",".join(endpoint.address for endpoint in first.endpoints)
    for each in settings:
        each |= {"LB_PEERS": peers, "LB_BACKENDS": backends}
    async with first, second:
        yield first, second


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, replicas: tuple[Stage, Stage]) -> AsyncIterator[Page]:
    """The first replica's dashboard, once it has heard the second."""
    opened = await browser.new_page(viewport={"width": 1280, "height": 900})
    await opened.goto(replicas[0].admin)
    await expect(opened.locator("#fleet-count")).to_have_text("2 of 2 live")
    yield opened
    await opened.close()


async def change(page: Page) -> None:
    """Give the token."""
    await page.get_by_label("LB_ADMIN_TOKEN").fill(TOKEN)
    await page.get_by_role("button", name="Go on").click()


async def test_it_shows_every_replica_their_sum_and_each_alone(page: Page) -> None:
    for row in ("lb-0", "lb-1"):
        await expect(page.get_by_role("row", name=re.compile(rf"^{row}.*Live.*3 of 3.*round-robin"))).to_be_visible()
    await expect(page.get_by_role("region", name="Replicas", exact=True)).to_have_count(
        1
    )  # Its table has a name of its own.
    own, other, both, figure = await page.evaluate(FIGURES)
    assert figure == both
    assert abs(own + other - both) <= 1  # Each is rounded.
    await page.get_by_label("Figures and plots of").select_option("lb-1")
    _, other, _, figure = await page.evaluate(FIGURES)
    assert figure == other
    own_alone = "From here on, all is what lb-0 alone sees and sends, whichever replica is picked above."
    await expect(page.locator("section", has=page.locator("#endpoints")).get_by_text(own_alone)).to_be_visible()


async def test_a_switch_and_a_drain_reach_all_replicas_or_one(page: Page, replicas: tuple[Stage, Stage]) -> None:
    address = replicas[0].endpoints[0].address
    await page.get_by_role("radio", name="least-connections").check()
    await page.get_by_role("button", name="Switch to").click()
    await expect(page.locator("#token-what")).to_have_text("Switch all replicas to least-connections.")
    await change(page)
    await page.get_by_role("button", name=f"Drain {address}").click()
    await expect(page.locator("#fleet-agreed")).to_contain_text(f"strategy least-connections; drained {address}")
    for row in ("lb-0", "lb-1"):
        name = re.compile(rf"^{row}.*2 of 3 least-connections")
        await expect(page.get_by_role("row", name=name)).to_be_visible()
    await page.get_by_label("Switch and drain in").select_option("this replica alone")
    await page.get_by_role("radio", name="random-of-two").check()
    await page.get_by_role("button", name="Switch to").click()
    await expect(page.get_by_role("row", name=re.compile(r"^lb-0.*random-of-two \(not as asked\)"))).to_be_visible()
    await expect(page.get_by_role("row", name=re.compile(r"^lb-1.*least-connections"))).to_be_visible()


async def test_a_replica_that_hangs_and_one_that_vanishes_show_so(page: Page, replicas: tuple[Stage, Stage]) -> None:
    replicas[1].hang()
    row = page.get_by_role("row", name=re.compile("^lb-1.*Silent for"))
    await expect(row).to_contain_text("no answer within")
    await expect(page.locator("#fleet-count")).to_have_text("1 of 2 live")
    await expect(page.get_by_role("row", name=re.compile(r"^All live (1\d|2\d)"))).to_be_visible()
    await replicas[1].stop_balancer()
    await expect(row).to_contain_text("cannot connect")
    await replicas[1].start_balancer()
    await expect(page.get_by_role("row", name=re.compile("^lb-1.*Live"))).to_be_visible()


async def test_without_peers_no_replica_is_spoken_of(browser: Browser, stage: Stage) -> None:
    page = await browser.new_page()
    await page.goto(stage.admin)
    await page.locator(".card").nth(3).wait_for()
    await expect(page.get_by_role("heading", name="Replicas")).to_be_hidden()
    await expect(page.get_by_label("Figures and plots of")).to_be_hidden()
    await page.close()
