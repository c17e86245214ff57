from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect
from tests.browser.stage import TOKEN, Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

STRATEGIES = [
    "n-to-one",
    "round-robin",
    "least-connections",
    "least-response-time",
    "least-work",
    "random-of-two",
    "consistent-hash",
]


async def switch(page: Page, name: str, token: str = TOKEN) -> None:
    await page.get_by_role("radio", name=name).check()
    await page.get_by_role("button", name=f"Switch to {name}").click()
    if await page.get_by_role("dialog").is_visible():
        await page.get_by_label("LB_ADMIN_TOKEN").fill(token)
        await page.get_by_role("button", name="Go on").click()


async def in_force(page: Page, name: str) -> None:
    await expect(page.locator(".option.current .name")).to_contain_text(name)


async def test_it_asks_no_other_host_for_anything(browser: Browser, stage: Stage) -> None:
    page = await browser.new_page()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    await page.goto(stage.admin)
    await page.locator(".live[data-state=live]").wait_for()
    await page.close()
    assert asked == {urlsplit(stage.admin).netloc}


async def test_it_shows_the_traffic_and_every_endpoint_as_they_are(page: Page, stage: Stage) -> None:
    requests = page.locator(".figure", has_text="Requests").locator(".value")
    await expect(requests).to_have_text(re.compile(r"^[1-9]"))
    for endpoint in stage.endpoints:
        card = page.locator(".card", has_text=endpoint.address)
        await expect(card.locator(".state")).to_contain_text("Ready")
        await expect(card).to_contain_text(re.compile(r"Share\s*\d+ %"))
    await expect(page.get_by_role("img", name=re.compile("^Throughput.*Now: 2xx [1-9]"))).to_be_visible(timeout=15_000)
    await expect(page.get_by_role("img", name=re.compile("^Latency.*p99 .*ms"))).to_be_visible()


async def test_a_slow_endpoint_shows_in_its_card_and_in_the_percentiles(page: Page, stage: Stage) -> None:
    stage.endpoints[1].delay = 0.3
    card = page.locator(".card", has_text=stage.endpoints[1].address)
    await expect(card).to_contain_text(re.compile(r"Peak EWMA\s*[3-9]\d\d ms"))
    await expect(page.locator(".figure", has_text="Latency")).to_contain_text(
        re.compile(r"p99 [3-9]\d\d ms"),
    )


async def test_switching_asks_for_the_token_and_keeps_asking_while_it_is_wrong(page: Page) -> None:
    await switch(page, "least-connections", token="wrong")
    await expect(page.get_by_role("alert")).to_have_text("Wrong admin token.")
    await in_force(page, "round-robin")
    await page.get_by_label("LB_ADMIN_TOKEN").fill(TOKEN)
    await page.get_by_role("button", name="Go on").click()
    await in_force(page, "least-connections")
    await expect(page.locator("#events li").first).to_contain_text("Strategy: least-connections")
    await switch(page, "round-robin")  # It knows the token by now.
    await in_force(page, "round-robin")


async def test_a_switch_can_be_thought_better_of(page: Page) -> None:
    await page.get_by_role("radio", name="consistent-hash").check()
    await page.get_by_role("button", name="Switch to consistent-hash").click()
    await page.get_by_role("button", name="Cancel").click()
    await in_force(page, "round-robin")
    await page.get_by_role("button", name="Switch to consistent-hash").click()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await in_force(page, "round-robin")


async def test_it_says_which_replica_this_is_and_that_a_switch_is_its_alone(page: Page, stage: Stage) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{stage.admin}/api/strategy") as response:
        replica = (await response.json())["replica"]
    await expect(page.locator("#about")).to_contain_text(replica)
    note = page.locator("#strategy-note")
    await expect(note).to_contain_text(replica)
    await expect(note).to_contain_text(
        "A switch is this replica's alone, until it restarts; LB_STRATEGY sets it for good."
    )


async def test_the_strategy_can_be_switched_with_the_keyboard_alone(page: Page) -> None:
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the endpoints")).to_be_focused()
    for _ in range(20):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.name") == "strategy":
            break
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("radio", name="least-connections")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.type(TOKEN)
    await page.keyboard.press("Enter")
    await in_force(page, "least-connections")
    await switch(page, "round-robin")
    await in_force(page, "round-robin")


async def test_a_plots_values_can_be_read_with_the_arrow_keys(page: Page) -> None:
    plot = page.locator("canvas").first
    await page.wait_for_timeout(2100)  # Two seconds of history.
    await plot.focus()
    await page.keyboard.press("ArrowLeft")
    tip = page.get_by_role("status").filter(has_text="2xx")
    await expect(tip).to_contain_text(re.compile(r"\d\d:\d\d:\d\d · 2xx"))
    await page.keyboard.press("Escape")
    await expect(tip).to_be_hidden()


async def test_a_decision_opens_to_its_scores_and_the_stream_waits_meanwhile(page: Page, stage: Stage) -> None:
    decision = page.locator(".decisions details").first
    await expect(decision).to_contain_text("GET /pi/100")
    await decision.locator("summary").click()
    opened = page.locator(".decisions details[open]")
    rows = opened.locator("tbody tr")
    await expect(rows).to_have_count(4)
    await expect(opened.locator("tr.won")).to_have_count(1)
    await expect(opened.locator("tr.won .score")).not_to_be_empty()
    before = await page.locator(".decisions details").count()
    await expect(page.locator("#decisions-note")).to_contain_text(re.compile(r"Waiting while one is open: [1-9]"))
    assert await page.locator(".decisions details").count() == before
    await opened.locator("summary").click()
    await expect(page.locator("#decisions-note")).to_contain_text("Open one for its scores")


async def test_it_tells_what_every_other_strategy_would_have_chosen(page: Page) -> None:
    others = page.locator("#others .other")
    await expect(others).to_have_count(len(STRATEGIES))
    for number, name in enumerate(STRATEGIES):
        await expect(others.nth(number)).to_contain_text(name)
    await expect(page.locator("#others .other.current")).to_contain_text("round-robin")
    await page.get_by_text("The latest requests, side by side").click()
    await expect(page.locator("table.others tbody tr")).to_have_count(10)
    await expect(page.locator("table.others thead th")).to_have_count(1 + len(STRATEGIES))


async def test_an_ejected_endpoint_counts_down_and_comes_back(page: Page, stage: Stage) -> None:
    stage.endpoints[2].status = 500
    card = page.locator(".card", has_text=stage.endpoints[2].address)
    await expect(card.locator(".state")).to_contain_text("Ejected")
    await expect(card.locator(".reason")).to_have_text(re.compile(r"Back in \d+ s"))
    await expect(card.locator(".countdown")).to_be_visible()
    stage.endpoints[2].status = 200
    await expect(card.locator(".state")).to_contain_text("Ready")
    happened = page.locator("#events li", has_text=stage.endpoints[2].address)
    await expect(happened.filter(has_text="ejected").first).to_be_visible()
    await expect(happened.filter(has_text="returned").first).to_be_visible()


async def test_an_endpoint_is_drained_and_taken_back_by_hand(page: Page, stage: Stage) -> None:
    address = stage.endpoints[0].address
    card = page.locator(".card", has_text=address)
    await page.get_by_role("button", name=f"Drain {address}").click()
    await page.get_by_label("LB_ADMIN_TOKEN").fill(TOKEN)
    await page.keyboard.press("Enter")
    await expect(card.locator(".state")).to_contain_text("Drained by hand")
    await page.get_by_role("button", name=f"Take back {address}").click()
    await expect(card.locator(".state")).to_contain_text("Ready")


async def test_it_survives_the_balancers_restart(page: Page, stage: Stage) -> None:
    await stage.stop_balancer()
    await expect(page.locator("#live")).to_contain_text("trying again")
    await expect(page.locator(".card")).to_have_count(4)  # What was last known stays in sight.
    await stage.start_balancer()
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.locator("#events li", has_text="The balancer was restarted")).to_have_count(1)
    await expect(page.locator(".decisions details").first).to_contain_text("GET /pi/100")


async def test_what_a_client_sends_is_shown_as_text_and_never_run(page: Page, stage: Stage) -> None:
    evil = "/<img src=x onerror=document.title='owned'>"
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(stage.url).port)
    for _ in range(300):  # Decisions are sampled: one of these will be among them.
        writer.write(f"GET {evil.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"3.14159")
        await asyncio.sleep(0.005)
    writer.close()
    await expect(page.locator(".decisions .request", has_text="onerror").first).to_be_visible()
    assert await page.locator(".decisions img").count() == 0
    assert "owned" not in await page.title()


async def test_without_a_token_it_says_why_nothing_can_be_changed(browser: Browser) -> None:
    async with Stage(1, token=None) as stage:
        page = await browser.new_page()
        await page.goto(stage.admin)
        await expect(page.get_by_role("radio", name="n-to-one")).to_be_disabled()
        await expect(page.get_by_role("button", name="Switch")).to_be_disabled()
        drain = page.get_by_role("button", name=f"Drain {stage.endpoints[0].address}")
        await expect(drain).to_be_disabled()
        await expect(drain).to_have_accessible_description(
            re.compile("LB_ADMIN_TOKEN is not set.*LB_ADMIN_TOKEN=TOKEN")
        )
        for notice in ("#strategy-read-only", "#endpoints-read-only"):
            await expect(page.locator(notice)).to_contain_text("Read only: LB_ADMIN_TOKEN is not set.")
            await expect(page.locator(notice)).not_to_contain_text("helm")
        await page.close()


async def test_in_tcp_mode_it_tells_of_connections_and_of_the_time_to_connect(browser: Browser) -> None:
    async with Stage(2, settings={"LB_MODE": "tcp"}) as stage:
        page = await browser.new_page()
        await page.goto(stage.admin)
        await expect(page.get_by_role("img", name=re.compile("^Throughput, connections a second"))).to_be_visible()
        await expect(page.get_by_role("img", name=re.compile("^Latency, to connect.*p99 .*ms"))).to_be_visible()
        await expect(page.locator(".decisions details").first).to_contain_text("connection from 127.0.0.1")
        await expect(page.locator(".figure", has_text="Failed").locator(".value")).to_have_text("0 %")
        await page.close()


async def test_the_theme_follows_the_system_and_can_be_chosen(browser: Browser, stage: Stage) -> None:
    page = await browser.new_page(color_scheme="dark")
    await page.goto(stage.admin)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = await page.evaluate(background)
    await page.get_by_label("Theme").select_option("light")
    light = await page.evaluate(background)
    assert dark != light
    await page.reload()
    assert await page.evaluate(background) == light
    await page.close()
