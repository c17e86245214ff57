"""`make stress`: every answer is checked, every failure counted, and the exit status tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tools.stress import expected, main, pi_text

PI = pi_text(60)
Respond = Callable[[int], web.Response]
Serve = Callable[[Respond], Awaitable[str]]


def right(digits: int) -> web.Response:
    """As the Pi service answers."""
    return web.Response(text=expected(digits, PI), headers={"X-Served-By": f"pi-{digits % 2}"})


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server that answers as the function says; its URL."""
    servers: list[TestServer] = []

    async def start(respond: Respond) -> str:
        async def answer(request: web.Request) -> web.Response:
            return respond(int(request.match_info["digits"]))

        app = web.Application()
        app.router.add_get("/{digits}", answer)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        return str(servers[-1].make_url("/"))

    yield start
    for server in servers:
        await server.close()


async def stress(url: str, *arguments: str) -> int:
    """The exit status of a small load."""
    few = ("--requests", "40", "--concurrency", "4", "--digits", "0-50")
    return await asyncio.to_thread(main, ["--url", url, *few, *arguments])


async def test_all_answered_rightly_is_success(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    assert await stress(await serve(right)) == 0

    shown = capsys.readouterr().out
    assert "200" in shown
    assert "pi-0" in shown
    assert "pi-1" in shown
    assert "0 failed" in shown


async def test_wrong_digits_are_a_failure(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    def one_wrong(digits: int) -> web.Response:
        return web.Response(text="3.15\n") if digits == 30 else right(digits)

    assert await stress(await serve(one_wrong), "--digits", "30") == 1
    assert "200, wrong digits" in capsys.readouterr().out


async def test_an_error_is_named_with_the_reason_that_the_balancer_gave(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    status = 'lb; error=destination_unavailable; details="all ejected"'

    assert await stress(await serve(lambda _: web.Response(status=503, headers={"Proxy-Status": status}))) == 1
    shown = capsys.readouterr().out
    assert "503 error=destination_unavailable" in shown
    assert "40 failed" in shown


async def test_nobody_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert await stress("http://127.0.0.1:1") == 1
    assert "40 failed" in capsys.readouterr().out


@pytest.mark.parametrize("digits", ["ten", "9-3", "-5", "1.5", ""])
def test_what_is_no_range_of_digits_is_refused(digits: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([f"--digits={digits}"])

    assert "is no range of digits: give one such as 10-1000" in capsys.readouterr().err


def test_the_digits_it_compares_with_are_those_of_pi() -> None:
    assert expected(0, PI) == "3\n"
    assert expected(10, PI) == "3.1415926535\n"
    assert pi_text(1000)[-10:] == "2164201989"
