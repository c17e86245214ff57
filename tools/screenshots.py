"""Makes the pictures of docs/tour.md again: `make demo`'s stage, a real Chromium, and the tour's own steps.

    .venv/bin/python -m tools.screenshots

Takes about two minutes. Needs Chromium (CHROMIUM=/path names one) and, to make the files small, pngquant.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from playwright.async_api import Browser, Locator, Page, async_playwright, expect
from tools.demo import TOKEN, play, stage
from tools.run import free_ports

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
LIMIT = 200_000
"""Bytes of one picture, at most."""
WATCHED = 45.0
"""Seconds that each strategy is watched for, so that the plots have something to show."""


async def take(what: Page | Locator, name: str) -> None:
    """One picture, made small."""
    path = PICTURES / f"{name}.png"
    await what.screenshot(path=path, animations="disabled")
    if shutil.which("pngquant"):
        options = ("--force", "--skip-if-larger", "--strip", "--output", str(path))
        await (await asyncio.create_subprocess_exec("pngquant", *options, "96", str(path))).wait()
    print(f"{path.name}: {path.stat().st_size // 1000} KB")
    if path.stat().st_size > LIMIT:
        raise SystemExit(f"{path.name} is larger than {LIMIT} bytes: install pngquant")


async def open_dashboard(browser: Browser, url: str, size: tuple[int, int], scheme: str) -> Page:
    """The dashboard, live, in one size and colour scheme."""
    page = await browser.new_page(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
    )
    await page.goto(url)
    await page.locator(".card").nth(3).wait_for(timeout=60_000)
    # The head stays in sight when the page is scrolled: not over the part that is pictured.
    await page.evaluate("document.querySelector('.top').style.position = 'static'")
    await page.wait_for_timeout(3000)
    return page


async def tour(browser: Browser, url: str) -> None:
    """The steps of docs/tour.md."""
    page = await open_dashboard(browser, url, (1360, 900), "light")
    await page.get_by_label("Shown").select_option("120")
    await page.wait_for_timeout(WATCHED * 1000)
    await take(page, "round-robin")

    await take(page.locator("section", has=page.locator("#others")).last, "others")
    await page.get_by_role("radio", name="least-response-time").check()
    await page.get_by_role("button", name="Switch to").click()
    await page.get_by_label("LB_ADMIN_TOKEN").fill(TOKEN)
    await take(page, "token")
    await page.keyboard.press("Enter")
    await page.wait_for_timeout(WATCHED * 1000)
    await page.evaluate("scrollTo(0, 0)")
    await take(page, "least-response-time")
    await page.locator(".decisions summary").nth(1).click()
    await take(page.locator("section", has=page.locator("#decisions")).last, "decision")

    await page.request.put(
        f"{url}/api/strategy", data={"strategy": "round-robin"}, headers={"Authorization": f"Bearer {TOKEN}"}
    )
    ejected = page.locator(".card[data-state=ejected]")
    await expect(ejected.first).to_be_visible(timeout=120_000)
    await page.wait_for_timeout(2500)
    await take(page.locator("section", has=page.locator("#endpoints")), "ejected")
    await page.close()

    page = await open_dashboard(browser, url, (1360, 900), "dark")
    await take(page, "dark")
    await page.close()
    page = await open_dashboard(browser, url, (390, 844), "dark")
    await take(page, "phone")
    await page.close()


async def main() -> None:
    """Set the stage, take the tour, and clear up."""
    if CHROMIUM is None:
        raise SystemExit("no Chromium: install Debian's package `chromium`, or name another with CHROMIUM=/path")
    PICTURES.mkdir(parents=True, exist_ok=True)
    port, admin_port = free_ports(2)
    ports = {"LB_PORT": str(port), "LB_ADMIN_PORT": str(admin_port), "NO_COLOR": "1"}
    quiet = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    show = asyncio.create_task(play(stage({**quiet, **ports, "HOSTNAME": "lb-6f7d9c5b8-k2xqv"})))
    try:
        async with async_playwright() as playwright:
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
            url = f"http://localhost:{admin_port}"
            await until_up(browser, url)
            await tour(browser, url)
            await browser.close()
    finally:
        os.kill(os.getpid(), 2)  # As Ctrl-C would: the runner stops what it has started.
        await show


async def until_up(browser: Browser, url: str) -> None:
    """Return once the dashboard answers."""
    page = await browser.new_page()
    async with asyncio.timeout(60):
        while True:
            try:
                await page.goto(url)
            except Exception:  # noqa: BLE001 - Playwright tells a refused connection by its general Error
                await asyncio.sleep(0.5)
            else:
                break
    await page.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
