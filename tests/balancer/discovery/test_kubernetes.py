"""The API's faults, one at a time: what a user sees of each in the endpoints, the status and the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import certifi
import pytest
from aiohttp import web

from balancer.discovery import Status, gathering, kubeapi, kubernetes
from balancer.discovery.kubernetes import KubernetesDiscovery

Json = dict[str, Any]


def endpoint(address: str, name: str) -> Json:
    return {"addresses": [address], "targetRef": {"kind": "Pod", "name": name, "uid": f"uid-{name}"}}


def slice_of(name: str, *endpoints: Json, ports: Any = None) -> Json:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "pi"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}] if ports is None else ports,
        "endpoints": list(endpoints),
    }


A, B, C = (endpoint(f"10.0.0.{number}", name) for number, name in enumerate("abc", 1))


async def test_what_is_there_at_the_start_and_each_change_after_it(api: Any, watch: Callable[..., Any]) -> None:
    api.put(slice_of("pi-1", A), slice_of("pi-2", B))
    reader = watch()
    await reader.until(lambda: reader.last == ["10.0.0.1:8000", "10.0.0.2:8000"])
    await reader.until(lambda: api.watching)
    api.put(slice_of("pi-2", B, C))
    await reader.until(lambda: reader.last == ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"])
    api.delete("pi-1")
    await reader.until(lambda: reader.last == ["10.0.0.2:8000", "10.0.0.3:8000"])
    assert reader.status.error is None


async def test_it_asks_for_the_services_slices_in_our_own_namespace_with_bookmarks(
    api: Any, watch: Callable[..., Any]
) -> None:
    reader = watch()
    await reader.until(lambda: api.watching)
    (verb, listing), (second, watching) = api.requests
    assert (verb, second) == ("list", "watch")
    assert listing == {"namespace": "shop", "labelSelector": "kubernetes.io/service-name=pi"}
    assert watching["allowWatchBookmarks"] == "true"
    assert watching["resourceVersion"] == "100"


async def test_a_watch_that_ends_is_resumed_where_it_was_and_nothing_is_listed_again(
    api: Any, watch: Callable[..., Any]
) -> None:
    api.put(slice_of("pi-1", A))
    reader = watch()
    await reader.until(lambda: api.watching)
    api.bookmark()
    await reader.until(lambda: reader.status.events.get("bookmark"))
    api.break_watches()
    await reader.until(lambda: not api.watching)
    api.put(slice_of("pi-1", A, B))
    await reader.until(lambda: len(reader.last) == 2)
    assert api.count("list") == 1
    assert api.requests[-1][1]["resourceVersion"] == "102", "the bookmark's version, not the list's"


async def test_the_servers_own_end_of_a_watch_is_no_fault(api: Any, watch: Callable[..., Any]) -> None:
    reader = watch(seconds=1)
    await reader.until(lambda: api.count("watch") == 3)
    assert api.count("list") == 1
    assert reader.status.error is not None, "no slice"
    assert not reader.status.stale


@pytest.mark.parametrize("way", ["status", "event"])
async def test_a_version_too_old_is_listed_again_and_what_left_meanwhile_is_gone(
    api: Any, watch: Callable[..., Any], way: str, logs: list[Json]
) -> None:
    api.put(slice_of("pi-1", A), slice_of("pi-2", B))
    reader = watch()
    await reader.until(lambda: api.watching)
    if way == "event":
        api.slices.pop("pi-2")
        api.compact()
        api.error(410, "too old resource version: 1 (2)")
    else:
        api.break_watches()
        await reader.until(lambda: not api.watching)
        api.slices.pop("pi-2")
        api.compact()
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    assert api.count("list") == 2
    assert reader.status.events["gone"] == 1
    assert not [line for line in logs if line["event"] == "discovery_failing" and line["kind"] == "gone"]


async def test_a_half_open_watch_is_noticed(
    api: Any, watch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeapi, "GRACE", 0.2)
    api.put(slice_of("pi-1", A))
    api.silent = True
    reader = watch(seconds=0.2)
    await reader.until(lambda: api.watching)
    api.put(slice_of("pi-1", A, B))
    await reader.until(lambda: reader.status.stale)
    assert "silent" in reader.status.error
    assert reader.last == ["10.0.0.1:8000"]
    api.silent = False
    await reader.until(lambda: len(reader.last) == 2)


async def test_while_the_api_is_away_the_endpoints_stand_and_their_age_is_told(
    api: Any, watch: Callable[..., Any], logs: list[Json]
) -> None:
    api.put(slice_of("pi-1", A))
    reader = watch()
    await reader.until(lambda: api.watching)
    fresh_at = reader.status.fresh_at
    await api.stop()
    await reader.until(lambda: reader.status.events.get("unreachable", 0) >= 3)
    assert reader.last == ["10.0.0.1:8000"]
    assert "cannot be reached" in reader.status.error
    assert "last known endpoints go on serving" in reader.status.error
    assert reader.status.age(time.monotonic()) >= time.monotonic() - fresh_at - 0.1
    api.slices["pi-1"]["endpoints"].append(B)
    api.compact()
    await api.start()
    await reader.until(lambda: len(reader.last) == 2)
    await reader.until(lambda: reader.status.error is None)
    told = [line["event"] for line in logs]
    assert told == ["discovery_failing", "discovery_recovered"], "one line for each transition, however many attempts"


async def test_a_start_while_the_api_is_away_gives_no_snapshot_until_it_is_back(
    api: Any, watch: Callable[..., Any]
) -> None:
    api.put(slice_of("pi-1", A))
    await api.stop()
    reader = watch()
    await reader.until(lambda: reader.status.events.get("unreachable", 0) >= 2)
    assert reader.status.fresh_at is None
    assert not reader.snapshots
    assert "No endpoint is known yet" in reader.status.error
    await api.start()
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    assert reader.status.fresh_at is not None


async def test_a_refused_list_names_the_verb_that_the_role_lacks_once(
    api: Any, watch: Callable[..., Any], refuse: Callable[..., Any], logs: list[Json]
) -> None:
    message = 'endpointslices.discovery.k8s.io is forbidden: User "x" cannot list resource'
    api.refusals["list"] = refuse(403, message)
    reader = watch()
    await reader.until(lambda: reader.status.events.get("forbidden_list", 0) >= 3)
    assert 'needs the verb "list"' in reader.status.error
    assert "Role in shop" in reader.status.error
    assert message in reader.status.error
    assert reader.status.fresh_at is None
    assert len(logs) == 1
    assert logs[0]["log_level"] == "warning"


async def test_a_role_that_may_list_but_not_watch_gives_endpoints_and_says_so(
    api: Any, watch: Callable[..., Any], refuse: Callable[..., Any], logs: list[Json]
) -> None:
    api.put(slice_of("pi-1", A))
    api.refusals["watch"] = refuse(403, "cannot watch")
    reader = watch()
    await reader.until(lambda: reader.status.events.get("forbidden_watch", 0) >= 3)
    assert reader.last == ["10.0.0.1:8000"]
    assert 'needs the verb "watch"' in reader.status.error
    assert len(logs) == 1
    del api.refusals["watch"]
    await reader.until(lambda: reader.status.error is None)


async def test_a_rotated_token_is_read_again_and_nothing_is_said(
    api: Any, watch: Callable[..., Any], logs: list[Json]
) -> None:
    api.put(slice_of("pi-1", A))
    reader = watch()
    await reader.until(lambda: api.watching)
    api.token = "second"
    (api.folder / "token").write_text("second")
    api.break_watches()
    await reader.until(lambda: not api.watching)
    api.put(slice_of("pi-1", A, B))
    await reader.until(lambda: len(reader.last) == 2)
    assert reader.status.events.get("unauthorized", 0) <= 1
    assert "unauthorized" not in [line.get("kind") for line in logs]


async def test_credentials_that_stay_refused_are_told_with_the_remedy(api: Any, watch: Callable[..., Any]) -> None:
    api.token = "another"
    reader = watch()
    await reader.until(lambda: reader.status.stale)
    assert "401" in reader.status.error
    assert "ServiceAccount" in reader.status.error


async def test_in_a_pod_the_mounted_secrets_say_whom_to_ask_and_where_we_are(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "token").write_text("first")
    (secrets / "namespace").write_text("shop\n")
    (secrets / "ca.crt").symlink_to(certifi.where())
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    client = await kubeapi.SliceApi.connect(environ, secrets)
    try:
        assert client.server == "https://10.96.0.1:443"
        assert client.namespace == "shop"
    finally:
        await client.close()
    (secrets / "token").unlink()
    with pytest.raises(kubeapi.ApiError, match="automountServiceAccountToken"):
        await kubeapi.SliceApi.connect(environ, secrets)


async def test_a_service_without_slices_is_told_with_what_to_look_for(
    api: Any, watch: Callable[..., Any], logs: list[Json]
) -> None:
    reader = watch()
    await reader.until(lambda: api.watching)
    assert reader.snapshots == [()]
    assert "kubectl -n shop get service pi" in reader.status.error
    assert not reader.status.stale
    api.put(slice_of("pi-1", A))
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    assert reader.status.error is None
    assert [line["event"] for line in logs] == ["discovery_incomplete", "discovery_complete"]


async def test_a_port_that_is_not_there_is_told_with_those_that_are(
    api: Any, watch: Callable[..., Any], logs: list[Json]
) -> None:
    ports = [{"name": "http", "port": 8000, "protocol": "TCP"}, {"name": "admin", "port": 8001}]
    api.put(slice_of("pi-1", A, ports=ports))
    reader = watch(port="web")
    await reader.until(lambda: api.watching)
    assert reader.snapshots == [()]
    assert "no port web" in reader.status.error
    assert "admin (8001), http (8000)" in reader.status.error
    api.put(slice_of("pi-1", A, B, ports=ports))
    await reader.until(lambda: reader.status.events.get("modified"))
    assert len(logs) == 1


async def test_a_service_with_several_ports_asks_which_one(api: Any, watch: Callable[..., Any]) -> None:
    api.put(slice_of("pi-1", A, ports=[{"name": "http", "port": 8000}, {"name": "admin", "port": 8001}]))
    reader = watch()
    await reader.until(lambda: reader.status.error)
    assert "set LB_KUBERNETES_PORT to one of admin (8001), http (8000)" in reader.status.error


async def test_a_server_that_asks_to_wait_is_waited_for(
    api: Any, watch: Callable[..., Any], refuse: Callable[..., Any]
) -> None:
    api.refusals["list"] = refuse(429, "too many requests", **{"Retry-After": "1"})
    started = time.monotonic()
    reader = watch()
    await reader.until(lambda: api.count("list") == 2)
    assert time.monotonic() - started >= 1.0


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_loop(
    api: Any, watch: Callable[..., Any]
) -> None:
    api.refusals["watch"] = web.Response(text="")
    reader = watch()
    await reader.until(lambda: reader.status.events.get("watch_ended", 0) >= 4)
    first = time.monotonic()
    await reader.until(lambda: reader.status.events.get("watch_ended", 0) >= 5)
    assert time.monotonic() - first > 0.5


@pytest.mark.parametrize("body", ["<html>", "[]", '{"items": [{}]}', '{"items": [1], "metadata": {}}'])
async def test_an_answer_that_is_no_list_of_slices_leaves_the_endpoints_and_the_process_alone(
    api: Any, watch: Callable[..., Any], body: str
) -> None:
    api.refusals["list"] = web.Response(text=body)
    reader = watch()
    await reader.until(lambda: reader.status.stale)
    del api.refusals["list"]
    await reader.until(lambda: api.watching)


async def test_an_error_in_the_stream_other_than_gone_is_told_and_listed_again(
    api: Any, watch: Callable[..., Any]
) -> None:
    api.put(slice_of("pi-1", A))
    reader = watch()
    await reader.until(lambda: api.watching)
    api.error(500, "etcdserver: no leader")
    await reader.until(lambda: reader.status.stale)
    assert "no leader" in reader.status.error
    await reader.until(lambda: api.count("list") == 2)
    await reader.until(lambda: reader.status.error is None)
    assert reader.last == ["10.0.0.1:8000"]


async def test_an_event_longer_than_any_buffer_arrives_whole(api: Any, watch: Callable[..., Any]) -> None:
    reader = watch()
    await reader.until(lambda: api.watching)
    pods = [endpoint(f"10.{n >> 8}.{n & 255}.1", f"pod-{n:06d}" + "x" * 2000) for n in range(2000)]
    api.put(slice_of("pi-1", *pods))
    await reader.until(lambda: len(reader.last) == 2000)


async def test_an_events_endpoints_are_applied_within_100_ms(api: Any, watch: Callable[..., Any]) -> None:
    reader = watch()
    await reader.until(lambda: api.watching)
    delays = []
    for number in range(100):
        # Alone, hard on the heels of another, and in threes.
        await asyncio.sleep(0.06 if number % 3 == 0 else 0.01)
        before = time.perf_counter()
        address = f"10.1.0.{number}"
        api.put(slice_of("pi-1", A, endpoint(address, "b")))
        await reader.until(lambda address=address: f"{address}:8000" in reader.last)
        delays.append(reader.times[-1] - before)
    assert sorted(delays)[98] < 0.1, sorted(delays)[-5:]


async def test_closing_leaves_no_connection_behind(api: Any, watch: Callable[..., Any]) -> None:
    reader = watch()
    await reader.until(lambda: api.watching)
    await reader.stop()
    end = time.monotonic() + 5
    while api.watching and time.monotonic() < end:
        api.bookmark()  # a server notices that its client is gone when it writes
        await asyncio.sleep(0.01)
    assert not api.watching


@pytest.mark.parametrize("content", ["", "[]", "{", "clusters: 5", "current-context: nowhere\ncontexts: []"])
async def test_a_malformed_kubeconfig_is_told_and_read_again(
    api: Any, read: Callable[..., Any], tmp_path: Path, content: str
) -> None:
    file = tmp_path / "config"
    file.write_text(content)
    discovery = KubernetesDiscovery("pi", None, None, Status("kubernetes"), Random(1))
    discovery.environ = {"KUBECONFIG": str(file)}
    reader = read(discovery)
    await reader.until(lambda: reader.status.stale)
    assert "KUBECONFIG" in reader.status.error
    file.write_bytes(api.kubeconfig.read_bytes())
    await reader.until(lambda: api.watching)


async def test_a_server_whose_versions_fell_back_is_listed_again(
    api: Any, watch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "SILENCE", 0.5)
    api.put(slice_of("pi-1", A))
    reader = watch(seconds=1)
    await reader.until(lambda: api.watching)
    api.fall_back(7)  # etcd was restored: the watch from a version ahead gets 200, and nothing ever
    api.put(slice_of("pi-1", A, B))
    await reader.until(lambda: len(reader.last) == 2)
    await reader.until(lambda: api.watching)
    api.put(slice_of("pi-1", A, B, C))
    await reader.until(lambda: len(reader.last) == 3)
    assert reader.status.events["silent_watch"] >= 1
    assert not reader.status.stale


async def test_everything_is_listed_again_at_long_intervals(api: Any, watch: Callable[..., Any]) -> None:
    api.put(slice_of("pi-1", A))
    reader = watch(seconds=1)
    reader.discovery.list_again = 0.5
    await reader.until(lambda: api.watching)
    # A change that no watch tells of.
    api.slices["pi-1"]["endpoints"].append(B)
    await reader.until(lambda: len(reader.last) == 2)
    assert "silent_watch" not in reader.status.events


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (None, ["nor the Service itself", "backend.service"]),
        ({"type": "ExternalName", "externalName": "db.example.org"},
         ["type ExternalName", "LB_DISCOVERY=dns", "LB_DNS_NAME=db.example.org", "balancer.settings.discovery=dns"]),
        ({"type": "ClusterIP"}, ["has no selector", "kubernetes.io/service-name: pi"]),
        ({"type": "ClusterIP", "selector": {"app": "pi"}}, ["yet, though it has a selector"]),
        ("forbidden", ["no EndpointSlice", "ExternalName", 'the verb "get"']),
    ],
)  # fmt: skip
async def test_why_there_is_no_slice_is_told_with_the_remedy_and_the_start_is_not_ready(
    api: Any, watch: Callable[..., Any], service: Any, words: list[str]
) -> None:
    if service == "forbidden":
        api.refusals["get"] = refuse_get
    elif service:
        api.services["pi"] = {"spec": service}
    reader = watch()
    await reader.until(lambda: api.watching)
    for word in words:
        assert word in reader.status.error
    assert reader.status.fresh_at is None, "not ready"
    api.put(slice_of("pi-1", A))
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    assert reader.status.fresh_at is not None
    api.delete("pi-1")
    await reader.until(lambda: reader.last == [])
    assert reader.status.fresh_at is not None, "once ready, always ready"


refuse_get = web.Response(status=403)


async def test_a_start_with_a_port_that_is_not_there_is_not_ready(api: Any, watch: Callable[..., Any]) -> None:
    api.put(slice_of("pi-1", A))
    reader = watch(port="htpp", seconds=1)
    await reader.until(lambda: api.count("watch") == 2)
    assert reader.status.fresh_at is None
    assert "no port htpp: its EndpointSlices have http (8000)" in reader.status.error
    ports = [{"name": "htpp", "port": 8000}]
    api.put(slice_of("pi-1", A, ports=ports))
    await reader.until(lambda: reader.status.fresh_at is not None)
    api.put(slice_of("pi-1", A))
    await reader.until(lambda: not reader.last)
    assert reader.status.fresh_at is not None


async def test_a_service_scaled_to_nothing_is_ready_at_the_start(api: Any, watch: Callable[..., Any]) -> None:
    api.put(slice_of("pi-1", ports=[]))
    reader = watch(port="http")
    await reader.until(lambda: reader.status.fresh_at is not None and reader.snapshots)
    assert reader.snapshots == [()]


async def test_an_address_that_is_none_is_left_out_and_told_with_its_slice(
    api: Any, watch: Callable[..., Any], logs: list[Json]
) -> None:
    api.put(slice_of("pi-1", A, endpoint("010.0.0.2", "octal")))
    reader = watch()
    await reader.until(lambda: reader.status.fresh_at is not None and reader.snapshots)
    assert reader.last == ["10.0.0.1:8000"]
    assert "'010.0.0.2' in EndpointSlice pi-1" in reader.status.error
    assert reader.status.events["bad_address"] == 1
    api.put(slice_of("pi-1", A, B))
    await reader.until(lambda: len(reader.last) == 2)
    assert reader.status.error is None


async def test_a_pod_that_moves_to_another_slice_is_never_missing(
    api: Any, watch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "HELD", 1.0)  # this machine may be too busy for the 5 ms between the two writes
    api.put(slice_of("pi-1", A, B), slice_of("pi-2", C))
    reader = watch()
    await reader.until(lambda: api.watching)
    for number in range(20):
        there, gone = ("pi-2", "pi-1") if number % 2 else ("pi-1", "pi-2")
        api.put(slice_of(there, *([A] if there == "pi-1" else [C])))
        await asyncio.sleep(0.005)
        api.put(slice_of(gone, *([A, B] if gone == "pi-1" else [C, B])))
        await asyncio.sleep(0.06)
    assert all("10.0.0.2:8000" in [spec.address for spec in snapshot] for snapshot in reader.snapshots)
    api.delete("pi-2")
    await reader.until(lambda: "10.0.0.3:8000" not in reader.last)


async def test_a_second_port_leaves_the_first_in_use_and_is_told(api: Any, watch: Callable[..., Any]) -> None:
    api.put(slice_of("pi-1", A))
    reader = watch()
    await reader.until(lambda: api.watching)
    metrics = [{"name": "metrics", "port": 9100}]
    api.put(slice_of("pi-2", B, ports=metrics))
    await reader.until(lambda: reader.status.error)
    assert "http (8000), metrics (9100)" in reader.status.error
    assert reader.last == ["10.0.0.1:8000"]
    late = watch()
    await late.until(lambda: late.status.error)
    assert late.last == []
    assert late.status.fresh_at is None, "which is meant, nobody knows at a start"
