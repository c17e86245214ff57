"""The dashboard in a real Chromium, over the real balancer, over endpoints that a test can spoil."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect
from tests.browser.stage import Stage

expect.set_options(timeout=30_000)  # A machine that is busy otherwise is slow to paint.

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, started once."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package `chromium`, or name another with CHROMIUM=/path")
    async with async_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root.
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """The balancer with four endpoints and twenty requests a second."""
    async with Stage(4) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, stage: Stage) -> AsyncIterator[Page]:
    """The dashboard, live. Whatever the browser complains of fails the test."""
    stage.mend()
    opened = await browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(60_000)
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    await opened.goto(stage.admin)
    await opened.locator(".live[data-state=live]").wait_for()
    await opened.locator(".card").nth(3).wait_for()
    yield opened
    await opened.close()
    expected = ("net::ERR", "401 (Unauthorized)")  # A balancer that is away, and a wrong token, as some tests will.
    assert [text for text in complaints if not any(part in text for part in expected)] == []
