from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
from aiohttp import ClientSession
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tests.balancer.admin.world import MakeWorld, World

from balancer.admin import exposition
from balancer.admin.meter import quantile
from balancer.admin.metrics import METRICS
from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.outcome import Kind
from balancer.balancing.request import RequestInfo
from balancer.counters import Histogram, count

ROOT = Path(__file__).resolve().parents[3]
MOVING = ("lb_uptime", "lb_event_loop_lag")
"""What changes between two scrapes, whatever else does."""
OPEN = "application/openmetrics-text"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
EVERYTHING = ("requests", "bytes_received", "bytes_sent", "retries_denied", "connections_accepted", "drained_cut")


def parse_openmetrics(text: str) -> Iterable[Metric]:
    found: Iterable[Metric] = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return found


async def scrape(client: ClientSession, headers: dict[str, str] | None = None) -> str:
    async with client.get("/metrics", headers=headers) as response:
        assert response.status == 200
        return await response.text()


def value(text: str, sample: str, **labels: str) -> float:
    if "endpoint" in labels:
        labels = {"cluster": "default", **labels}
    for family in parse_text(text):
        for found in family.samples:
            if found.name == sample and found.labels == labels:
                return found.value
    raise AssertionError(f"no {sample} {labels}")


def busy(world: World) -> None:
    """Count something of every kind, with names that need escaping."""
    for name in EVERYTHING:
        setattr(world.counters, name, 7)
    tables = ("errors", "client_faults", "retries", "discovery_events", "connections_refused")
    for table in tables:
        count(getattr(world.counters, table), 'a "reason"\\with\nall')
    for name in ("total_seconds", "first_byte_seconds", "connect_seconds", "queue_seconds", "loop_lag_seconds"):
        getattr(world.counters, name).observe(0.004)
    world.request()
    world.request(503)
    world.endpoint(1).stats.failed[Kind.REFUSED.value] = 2


async def test_what_endpoints_did_is_told_by_endpoint_and_class(world: World, client: ClientSession) -> None:
    first = world.request(200)
    world.request(502)
    world.request(200)
    text = await scrape(client)
    assert value(text, "lb_endpoint_responses_total", endpoint=first.address, **{"class": "2xx"}) == 2
    assert value(text, "lb_responses_total", **{"class": "5xx"}) == 1
    assert value(text, "lb_requests_total") == 3
    assert value(text, "lb_endpoint_latency_seconds", endpoint=first.address) > 0


async def test_what_least_work_believes_of_an_endpoint_can_be_alerted_on(make_world: MakeWorld) -> None:
    world = await make_world(strategy="least-work")
    world.fleet("pi-a")
    for _ in range(5):
        endpoint = world.request(seconds=0.2)
    world.pool.lease(RequestInfo("192.0.2.1", "GET", "/pi"), world.now)
    async with ClientSession(base_url=world.url) as client:
        text = await scrape(client)
        assert value(text, "lb_endpoint_pace", endpoint=endpoint.address) == pytest.approx(1.0)
        assert value(text, "lb_endpoint_work_seconds", endpoint=endpoint.address) == pytest.approx(0.2)
        world.switch("round-robin")
        assert "lb_endpoint_pace{" not in await scrape(client)


async def test_a_histogram_is_cumulative_and_agrees_with_its_count_and_sum(world: World, client: ClientSession) -> None:
    for seconds in (0.0001, 0.003, 0.003, 700.0):
        world.counters.total_seconds.observe(seconds)
    text = await scrape(client)
    name = "lb_request_duration_seconds"
    assert value(text, f"{name}_bucket", le="0.0005") == 1
    assert value(text, f"{name}_bucket", le="0.005") == 3
    assert value(text, f"{name}_bucket", le="60.0") == 3
    assert value(text, f"{name}_bucket", le="+Inf") == value(text, f"{name}_count") == 4
    assert value(text, f"{name}_sum") == pytest.approx(700.0061)


def test_the_percentiles_of_the_dashboard_are_within_a_tenth_of_the_truth() -> None:
    random = Random(1)
    durations = sorted(random.lognormvariate(-5, 1.2) for _ in range(5000))
    histogram = Histogram()
    for seconds in durations:
        histogram.observe(seconds)
    for share in (0.1, 0.5, 0.9, 0.99):
        told = quantile(histogram.bounds, histogram.counts, share)
        assert told == pytest.approx(durations[int(share * 5000)], rel=0.1)
    assert quantile(histogram.bounds, [0] * len(histogram.counts), 0.5) is None


async def test_states_and_transitions_are_counted(world: World, client: ClientSession) -> None:
    world.pool.drain(world.endpoint(2), True, world.now)
    text = await scrape(client)
    assert value(text, "lb_endpoints", state="drained") == 1
    assert value(text, "lb_endpoints", state="ready") == 1
    assert value(text, "lb_endpoint_eligible", endpoint="10.0.0.2:8000") == 0
    assert value(text, "lb_transitions_total", event="drained") == 1
    assert value(text, "lb_transitions_total", event="held") == 1, "its old name, until 0.3"
    assert value(text, "lb_transitions_total", event="joined") == 2


async def test_the_age_of_the_discovery_is_absent_before_it_is_known(
    make_world: MakeWorld, world: World, client: ClientSession
) -> None:
    world.now += 5
    assert value(await scrape(client), "lb_discovery_age_seconds") == 5
    world.discovery.fresh_at = None
    assert not re.search(r"^lb_discovery_age_seconds ", await scrape(client), re.MULTILINE)


async def test_openmetrics_and_prometheus_tell_the_same(world: World, client: ClientSession) -> None:
    busy(world)
    text = await scrape(client)
    openmetrics = await scrape(client, OPENMETRICS)
    assert openmetrics.endswith("# EOF\n")
    assert openmetrics.count("# EOF") == 1

    def lb(families: Iterable[Metric]) -> dict[tuple[object, ...], float]:
        samples = [sample for family in families for sample in family.samples]
        ours = [s for s in samples if s.name.startswith("lb_") and not s.name.startswith(MOVING)]
        return {(s.name, *sorted(s.labels.items())): s.value for s in ours}

    plain, open_ = lb(parse_text(text)), lb(parse_openmetrics(openmetrics))
    assert plain == open_
    assert len(plain) > 100


async def test_every_name_follows_prometheus_conventions(world: World, client: ClientSession) -> None:
    busy(world)
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package `prometheus` has it)")
    checked = await asyncio.create_subprocess_exec(promtool, "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    complaints, _ = await checked.communicate((await scrape(client)).encode())
    assert (checked.returncode, complaints) == (0, b"")


async def test_a_scrape_tells_every_metric_of_the_table_and_no_other(world: World, client: ClientSession) -> None:
    busy(world)
    families = {family.name for family in parse_text(await scrape(client)) if not family.name.startswith("process_")}
    assert families == {metric.name.removesuffix("_total") for metric in METRICS}


async def test_two_pods_at_one_address_do_not_break_the_scrape(world: World, client: ClientSession) -> None:
    specs = [EndpointSpec("10.0.0.1", 8000, uid=uid) for uid in ("old", "new")]
    world.pool.replace(specs, world.now)
    lines = [line for line in (await scrape(client)).splitlines() if line.startswith("lb_endpoint_in_flight")]
    assert lines == ['lb_endpoint_in_flight{cluster="default",endpoint="10.0.0.1:8000"} 0.0']


async def test_a_big_fleet_is_told_whole_in_pieces_between_which_others_run(world: World) -> None:
    world.pool.replace([EndpointSpec(f"10.1.{i // 250}.{i % 250}", 80) for i in range(2000)], world.now)
    collector = exposition.BalancerCollector(world.admin._running)
    encode, _ = choose_encoder(OPENMETRICS["Accept"])
    ran = 0

    async def count_turns() -> None:
        nonlocal ran
        while True:
            ran += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count_turns())
    pieces = [piece async for piece in exposition.render(collector, encode)]
    other.cancel()
    text = b"".join(pieces).decode()
    assert ran >= len(pieces) - 1 > 2000 / exposition.SLICE * 10
    assert max(piece.count(b"\n") for piece in pieces) <= exposition.SLICE + 3
    assert text.count("# TYPE lb_endpoint_in_flight ") == 1
    in_flight = next(f for f in parse_openmetrics(text) if f.name == "lb_endpoint_in_flight")
    assert len(in_flight.samples) == 2000


def test_no_label_is_made_of_what_a_client_sends() -> None:
    from_clients = {"path", "method", "client", "host", "user", "url"}
    assert not from_clients & {label for metric in METRICS for label in metric.labels}


def test_the_page_is_in_step_with_the_table() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "tools" / "metrics.py", "--check"], capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


async def test_a_slow_event_loop_is_noticed(world: World) -> None:
    lag: Histogram = world.counters.loop_lag_seconds
    world.now += 3.0  # By the clock that the timer compares with, three seconds pass in one turn.
    async with asyncio.timeout(5):
        while not sum(lag.counts):  # noqa: ASYNC110 - counting tells nobody
            await asyncio.sleep(0.01)
    assert lag.sum == pytest.approx(2.9)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/plain;q=1, application/openmetrics-text;q=0", "text/plain"),
        ("application/openmetrics-text;q=0, text/plain", "text/plain"),
        ("application/openmetrics-text;q=0.5, text/plain", "text/plain"),
        ("application/openmetrics-text;version=1.0.0;q=0.5, text/plain;version=0.0.4;q=0.2", OPEN),
        ("text/plain;q=0.3, application/openmetrics-text;q=0.4", OPEN),
        ("application/openmetrics-text, text/plain", OPEN),
        ("text/plain;q=0, */*", OPEN),
        ("*/*", "text/plain"),
        ("application/openmetrics-text;version=0.0.1", "text/plain"),
        ("application/openmetrics-text;version=one", "text/plain"),
        ("application/openmetrics-text;version=1.0.0;escaping=dots", OPEN),
        ('application/openmetrics-text;x="a,b";q=0, text/plain', "text/plain"),
        ("", "text/plain"),
    ],
)
async def test_a_scrape_follows_the_weights_of_accept(accept: str, content_type: str, client: ClientSession) -> None:
    async with client.get("/metrics", headers={"Accept": accept}) as response:
        assert response.status == 200
        assert response.content_type == content_type
        assert (await response.text()).endswith("# EOF\n") == (content_type == OPEN)


@pytest.mark.parametrize("form", ["text/plain", OPEN])
@pytest.mark.parametrize("escaping", ["allow-utf-8", "underscores", "dots", "values"])
async def test_names_are_the_same_however_a_scrape_wants_names_escaped(
    form: str, escaping: str, client: ClientSession
) -> None:
    async def names(accept: str) -> set[str]:
        async with client.get("/metrics", headers={"Accept": accept}) as response:
            assert response.content_type == form
            return set(re.findall(r"^(?:# TYPE )?([a-z_]+)", await response.text(), re.MULTILINE))

    documented = await names(form)
    assert "lb_requests_total" in documented
    assert await names(f"{form};version=1.0.0;escaping={escaping}") == documented


@pytest.mark.parametrize("path", ["/metrics", "/", "/dashboard/app.js"])
@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0, deflate;q=0.1", "deflate"),
        ("identity, gzip;q=0.5", None),
    ],
)
async def test_compression_follows_the_weights(
    path: str, accepted: str, coding: str | None, client: ClientSession
) -> None:
    async with client.get(path, headers={"Accept-Encoding": accepted}) as response:
        assert response.status == 200
        assert response.headers.get("Content-Encoding") == coding
        assert "Accept-Encoding" in response.headers["Vary"]
        assert await response.text()
