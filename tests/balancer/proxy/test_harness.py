"""The proof that nothing was left behind: it must see what it is for."""

from __future__ import annotations

import os
import signal

import pytest
from tests.balancer.proxy.conftest import assert_at_rest
from tests.balancer.proxy.wire.ends import Client
from tests.balancer.proxy.wire.process import Start


def test_a_balancer_that_has_died_is_not_at_rest(start: Start) -> None:
    balancer = start(fresh=True)
    os.kill(balancer.process.pid, signal.SIGKILL)
    balancer.wait()
    with pytest.raises(AssertionError, match="ended by itself"):
        assert_at_rest(balancer)
    balancer.ended_by_test = True


async def test_an_open_connection_is_not_rest(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.balancer.proxy.conftest.SETTLE", 0.3)
    balancer = start()
    async with await Client.connect(balancer.port):
        with pytest.raises(AssertionError, match="not at rest"):
            assert_at_rest(balancer)
    monkeypatch.undo()
