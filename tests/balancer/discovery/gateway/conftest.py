"""Fixtures of the Gateway part: a stand-in for the API, and replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from benchmarks.clusterapi import ClusterApiServer
from tests.balancer.discovery.gateway.replicas import KINDS, Replicas


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ClusterApiServer]:
    server = ClusterApiServer({path: [dict(each) for each in items] for path, items in KINDS.items()})
    await server.start()
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield server
    await server.stop()


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    running = Replicas()
    yield running
    await running.stop_all()
