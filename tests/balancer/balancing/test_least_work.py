"""What is learned of requests and endpoints, and that least-work follows it."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

import pytest
from tests.balancer.balancing.world import Fleet, others_have

from balancer.balancing.cost import MAX_KINDS, RequestKind, RequestKinds, shape
from balancer.balancing.lease import Lease
from balancer.balancing.outcome import CLIENT_LEFT, Outcome
from balancer.balancing.request import RequestInfo
from balancer.lab.experiment import Setting, _Run, run
from balancer.lab.fleet import Script, named
from balancer.lab.record import geometric_mean, quantile
from balancer.lab.replica import Rules
from balancer.lab.study import study
from balancer.lab.traffic import Kind as Sent
from balancer.lab.traffic import Traffic

OK = Outcome.answered(200)


def get(path: str, *headers: tuple[bytes, bytes], method: str = "GET") -> RequestInfo:
    return RequestInfo("192.0.2.1", method, path, headers)


def teach(fleet: Fleet) -> None:
    """Let `/cheap` take 10 ms and `/dear` 1 s at endpoints a and b of one worker each."""
    for name in "ab" * 12:
        leases = [fleet.lease("ab".replace(name, ""), request=get(path)) for path in ("/cheap", "/dear")]
        for lease in leases:
            lease.sent(fleet.now)
        for lease, took in zip(leases, (0.01, 1.0), strict=True):
            fleet.now += took
            lease.first_byte(fleet.now)
            lease.close(OK, fleet.now)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/pi/1000", "/pi/1023", True),
        ("/pi/1000", "/pi/9000", False),
        ("/users/7f3a9c2e11", "/users/88b1c0de99", True),
        ("/users/1/posts", "/users/1/photos", False),
        ("/shop.Cart/Add", "/shop.Cart/Remove", False),
        ("/v1/items", "/v2/items", False),
        ("/x/" + "9" * 5000, "/x/" + "8" * 5001, True),
        ("/x/" + "9" * 60, "/x/800000000000", False),
    ],
)
def test_the_shape_of_a_path_says_the_kind(one: str, other: str, same: bool) -> None:
    kinds = RequestKinds()
    assert (kinds.of(get(one)) is kinds.of(get(other))) is same


def test_the_method_and_the_size_of_a_body_tell_kinds_apart() -> None:
    kinds = RequestKinds()
    small, large = ((b"Content-Length", size) for size in (b"100", b"100000"))
    assert kinds.of(get("/x", small, method="POST")) is not kinds.of(get("/x", large, method="POST"))
    assert kinds.of(get("/x")) is not kinds.of(get("/x", method="DELETE"))


@pytest.mark.parametrize("key", ["header:X-Cost", "path:/api/([a-z]+)"])
def test_a_key_says_what_tells_kinds_apart(key: str) -> None:
    kinds = RequestKinds(key)
    cheap, dear = get("/api/cheap/1", (b"x-cost", b"1")), get("/api/dear/2", (b"X-Cost", b"9"))
    assert kinds.of(cheap) is not kinds.of(dear)
    assert kinds.of(cheap) is kinds.of(get("/api/cheap/99999", (b"X-COST", b"1")))


@pytest.mark.parametrize("key", ["cookie:a", "header:", "path:(", "x"])
def test_a_wrong_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"allowed are|not a regular expression"):
        RequestKinds(key)


def test_kinds_are_bounded_whatever_clients_invent() -> None:
    kinds = RequestKinds()
    known = kinds.of(get("/known"))
    for i in range(5 * MAX_KINDS):
        kinds.of(get("/" + "".join(chr(97 + int(digit)) for digit in str(i))))
        assert kinds.of(get("/known")) is known
    assert len(kinds) <= MAX_KINDS


@pytest.mark.parametrize("invented", ["/{}", "/{}/12"])
def test_what_is_known_of_a_shape_outlives_whatever_clients_invent(invented: str) -> None:
    kinds = RequestKinds()
    for bits in range(20):
        for _ in range(5):
            kinds.take(get(f"/pi/{1 << bits}")).sample(2.0)
    for i in range(5 * MAX_KINDS):
        word = "".join(chr(97 + int(digit)) for digit in str(i))
        kinds.take(get(invented.format(word))).sample(0.01)
        kinds.take(get("/pi/1000")).sample(2.0)
    assert kinds.of(get(f"/pi/{1 << 30}")).expected == pytest.approx(2.0)
    assert len(kinds) <= MAX_KINDS


def test_only_the_beginning_of_a_long_path_is_looked_at() -> None:
    assert len(shape("/1" * 8000, True)) < 1000
    kinds = RequestKinds()
    assert kinds.of(get("/a" * 200 + "/b")) is kinds.of(get("/a" * 200 + "/c/1"))
    assert kinds.of(get("/a" * 100)) is not kinds.of(get("/a" * 99 + "/b"))


def test_a_pattern_looks_at_the_beginning_of_a_long_path_alone() -> None:
    kinds = RequestKinds("path:([a-z]+)/([0-9]+)")
    assert kinds.of(get("/" + "a" * 300 + "/12")) is kinds.of(get("/no-match"))
    assert kinds.of(get("/" + "a" * 200 + "/12")) is not kinds.of(get("/no-match"))


def test_paths_are_shaped() -> None:
    assert shape("GET /a/12/b", True) == "GET /a/#4/b"
    assert shape("GET /a/12/b", False) == "GET /a/#/b"


@pytest.mark.parametrize(("spread", "growth"), [("fixed", -1.0), ("exponential", 0.0), ("heavy", 0.6)])
def test_what_is_left_of_a_request_follows_from_the_spread_of_its_kind(spread: str, growth: float) -> None:
    random = Random(1)
    kind = RequestKind(None)
    draws = {
        "fixed": lambda: 1.0,
        "exponential": lambda: random.expovariate(1.0),
        "heavy": lambda: random.paretovariate(1.5),
    }
    for _ in range(3000):
        kind.sample(draws[spread]())
    assert kind.growth == pytest.approx(growth, abs=0.4)


def test_an_expensive_request_keeps_its_endpoint_busy_and_makes_it_not_slow() -> None:
    fleet = Fleet("least-work", names="a b")
    teach(fleet)
    dear = fleet.lease(request=get("/dear"))
    dear.sent(fleet.now)
    for _ in range(20):
        cheap = fleet.lease(request=get("/cheap"))
        assert cheap.endpoint is not dear.endpoint
        cheap.sent(fleet.now)
    assert 0.8 < fleet["a"].work.pace.factor / fleet["b"].work.pace.factor < 1.25


@pytest.mark.parametrize(("workers", "bar"), [(1, 0.95), (4, 1.1)])
def test_how_much_an_endpoint_works_on_at_once_is_learned(workers: int, bar: float) -> None:
    """By what it answers out of turn; and heavy-tailed costs are then waited for less than by counting requests."""
    setting = Setting(tuple(named("equal", 4, workers)), Traffic("heavy", 0.03), load=0.7, requests=2500)
    found = study(setting, ["least-work", "least-connections"], range(1, 9)).summaries()
    assert found["least-work"].mean < bar * found["least-connections"].mean


def test_an_endpoint_that_gets_little_is_believed_to_work_on_as_much_as_the_others() -> None:
    """It is given no more than it is believed to work on, and so could never show that it works on more."""
    setting = Setting(tuple(named("equal", 16, 4)), Traffic("heavy", 0.03), load=0.7, requests=6000)
    found = study(setting, ["least-work", "least-connections"], range(1, 7)).summaries()
    assert found["least-work"].slowdown < 1.05 * found["least-connections"].slowdown


def test_endpoints_count_as_free_until_they_have_shown_that_they_work_on_no_more() -> None:
    fleet = Fleet("least-work", names="a b")
    work, elsewhere = fleet["a"].work, fleet["a"].elsewhere
    others_have(fleet["a"], 5.0)
    assert work.has_room(elsewhere)
    teach(fleet)
    assert not work.has_room(elsewhere)
    others_have(fleet["a"], 0.0)
    assert work.has_room(elsewhere)
    assert work.costs.workers == 1.0


def test_a_request_of_an_unknown_kind_may_be_a_long_poll_and_its_endpoint_is_not_left_for_it() -> None:
    """The first long poll of a kind took its endpoint out of use until it was answered."""
    fleet = Fleet("least-work", names="a b")
    teach(fleet)
    unknown = fleet.lease(request=get("/unknown"))
    unknown.sent(fleet.now)
    for _ in range(20):
        fleet.now += 1.0
        assert unknown.endpoint.work.silence(fleet.now) == 0.0
    known = fleet.lease("ab".replace(unknown.endpoint.address[0], ""), request=get("/cheap"))
    known.sent(fleet.now)
    fleet.now += 6.0
    assert unknown.endpoint.work.silence(fleet.now) > 5.0


def test_where_most_requests_are_of_unknown_kinds_they_are_like_the_others() -> None:
    fleet = Fleet("least-work", names="a b")
    for number in range(40):
        lease = fleet.lease(request=get(f"/pages/{'abcdefghij'[number % 10]}{'klmnopqrst'[number // 10]}"))
        lease.sent(fleet.now)
        fleet.now += 0.01
        lease.first_byte(fleet.now)
        lease.close(OK, fleet.now)
    silent = fleet.lease(request=get("/pages/silent"))
    silent.sent(fleet.now)
    fleet.now += 6.0
    assert silent.endpoint.work.silence(fleet.now) > 5.0


def test_waiting_behind_an_expensive_request_makes_no_endpoint_look_slow() -> None:
    """least-response-time counted the wait as that many cheap requests' time: p99 2.2 times least-connections'."""
    fleet = Fleet("least-response-time", names="a b")
    teach(fleet)
    dear, cheap = (fleet.lease("b", request=get(path)) for path in ("/dear", "/cheap"))
    dear.sent(fleet.now)
    cheap.sent(fleet.now)
    fleet.now += 1.0
    dear.first_byte(fleet.now)
    fleet.now += 0.01
    cheap.first_byte(fleet.now)
    assert (dear.endpoint.latency.average(fleet.now) or 0.0) < 1.0


def test_an_endpoint_of_one_worker_among_larger_ones_is_believed_to_have_one() -> None:
    setting = Setting((*[Script(1)] * 2, *[Script(8)] * 2), Traffic(), load=0.8, requests=3000)
    found = study(setting, ["least-work", "least-connections"], (1, 2)).summaries()
    assert found["least-work"].mean < 0.68 * found["least-connections"].mean


@pytest.mark.parametrize("strategy", ["least-work", "least-response-time"])
def test_long_polls_streams_and_uploads_make_no_endpoint_look_slow(strategy: str) -> None:
    kinds = (
        Sent("/items", 0.9, 0.005),
        Sent("/poll", 0.05, 0.0, "fixed", idle=2.0),
        Sent("/events", 0.03, 0.002, stream=5.0),
        Sent("/upload", 0.02, 0.002, "fixed", "PUT", upload=3.0),
    )
    setting = Setting((Script(workers=2),) * 4, Traffic("kinds", kinds=kinds), load=0.6, requests=6000)
    shares = run(setting, strategy, 1).shares
    assert min(shares) > 0.4 * max(shares)


@pytest.mark.parametrize("workers", [16, 32, 64])
def test_a_kind_a_hundred_times_as_expensive_is_no_long_poll(workers: int) -> None:
    """It counted as no work, and most went to one endpoint: p99 10 s at 32 workers, of requests of 1 s."""
    kinds = (Sent("/items", 0.9, 0.01), Sent("/report", 0.1, 1.0, "fixed"))
    setting = Setting((Script(workers),) * 4, Traffic("kinds", kinds=kinds), load=0.7, requests=6000)
    found = study(setting, ["least-work", "least-connections"], (1, 2)).summaries()
    assert found["least-work"].p99 < 1.1 * found["least-connections"].p99
    assert found["least-work"].slowdown < 2.0 * found["least-connections"].slowdown


def test_requests_that_wait_for_a_worker_that_reads_an_upload_are_not_worked_on() -> None:
    """The upload is sent whole last and answered first: its endpoint was taken for one of six workers."""
    fleet = Fleet("least-work", names="a")
    endpoint = fleet["a"]
    for _ in range(40):
        upload = fleet.lease(request=get("/upload", method="POST"))
        waiting = []
        for _ in range(5):
            fleet.now += 0.5
            waiting.append(fleet.lease(request=get("/short")))
            waiting[-1].sent(fleet.now)
        upload.sent(fleet.now)
        for lease in (upload, *waiting):
            fleet.now += 0.01
            lease.first_byte(fleet.now)
            lease.close(OK, fleet.now)
    assert endpoint.work.concurrency.workers == 1.0


POLLED_FOR = 2.0


def polls(number: float, workers: int, spread: str, replicas: int = 1) -> Setting:
    """Requests of 10 ms at four endpoints, and so many long polls at each of them."""
    rate = 0.7 * 4 * workers / 0.01
    share = number * 4 / POLLED_FOR / rate
    kinds = (Sent("/items", 1.0 - share, 0.01, spread), Sent("/poll", share, 0.0, "fixed", idle=POLLED_FOR))
    return Setting((Script(workers),) * 4, Traffic("kinds", kinds=kinds), 0.7, 6000, replicas)


def short(setting: Setting, strategy: str, longest: float = 0.5) -> tuple[float, float]:
    """p50 and p99 (s) of the requests that are less work than `longest` (s), with two seeds."""
    middles, tails = [], []
    for seed in (1, 2):
        record = _Run(setting, strategy, seed, None).record
        times = sorted(
            time for time, slowdown in zip(record._times, record._slowdowns, strict=True) if time < longest * slowdown
        )
        middles.append(quantile(times, 0.5))
        tails.append(quantile(times, 0.99))
    return geometric_mean(middles), geometric_mean(tails)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("number", [1.0, 8.0])
@pytest.mark.parametrize("spread", ["exponential", "fixed"])
def test_a_few_long_polls_take_no_worker(workers: int, number: float, spread: str) -> None:
    """They counted as work until more than 32 were overtaken at once: p99 was up to 80 times least-connections'."""
    setting = polls(number, workers, spread)
    middle, tail = short(setting, "least-work")
    others_middle, others_tail = short(setting, "least-connections")
    assert middle <= 1.05 * others_middle
    assert tail <= 1.15 * others_tail


def test_replicas_that_know_only_themselves_see_long_polls_too() -> None:
    setting = polls(4.0, 1, "exponential", replicas=2)
    assert short(setting, "least-work")[1] < 1.5 * short(setting, "least-connections")[1]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_rare_report_takes_one_worker_of_several_that_answer_in_order(workers: int) -> None:
    """Requests that all take the same are answered in order, and so said nothing of the workers: one report of 1 s
    was taken to hold up everything, and p99 was 8 and 22 times least-connections' with two and four workers.
    """
    share = 0.1 / 100.0
    kinds = (Sent("/items", 1.0 - share, 0.01, "fixed"), Sent("/report", share, 1.0, "fixed"))
    setting = Setting((Script(workers),) * 4, Traffic("kinds", kinds=kinds), 0.7, 8000)
    assert short(setting, "least-work")[1] < 1.5 * short(setting, "least-connections")[1]


def answer(fleet: Fleet, lease: Lease, after: float = 0.0) -> None:
    """`lease` has its response so many seconds from now."""
    fleet.now += after
    lease.first_byte(fleet.now)
    lease.close(OK, fleet.now)


def send(fleet: Fleet, name: str, path: str) -> Lease:
    """A request is at the endpoint of that name."""
    fleet.now += 0.001
    lease = fleet.lease("ab".replace(name, ""), request=get(path))
    lease.sent(fleet.now)
    return lease


def teach_lengthy(fleet: Fleet, *paths: str) -> None:
    """Let requests of those paths take 60 s."""
    teach(fleet)
    for path in paths:
        for name in "ab" * 2:
            answer(fleet, send(fleet, name, path), 60.0)


def leave_room(fleet: Fleet, name: str, path: str) -> None:
    """A lengthy request, and one that is sent later and answered first."""
    lengthy = send(fleet, name, path)
    answer(fleet, send(fleet, name, "/cheap"), 0.01)
    answer(fleet, lengthy, 60.0)


def hold_up(fleet: Fleet, name: str, path: str) -> None:
    """A lengthy request, and one that is sent later and answered after it."""
    lengthy, cheap = send(fleet, name, path), send(fleet, name, "/cheap")
    answer(fleet, lengthy, 60.0)
    answer(fleet, cheap, 0.01)


def counts(fleet: Fleet, name: str, path: str) -> bool:
    """Whether a request of that path counts as work at the endpoint."""
    lease = send(fleet, name, path)
    waits = fleet[name].work.waits
    answer(fleet, lease, 60.0)
    return waits == 1


def test_of_long_polls_the_short_ones_are_answered_first_and_say_little_of_the_others() -> None:
    """Three short ones, and those that last were taken for work from then on, and their endpoint for one of many."""
    fleet = Fleet("least-work", names="a b")
    teach(fleet)
    last = send(fleet, "a", "/poll")
    for seconds in (0.1, 0.2, 0.3):
        answer(fleet, send(fleet, "a", "/poll"), seconds)
    fleet.now += 60.0
    for _ in range(2):
        answer(fleet, send(fleet, "a", "/cheap"), 0.01)
    assert last.endpoint.work.waits == 0


def test_one_late_answer_makes_no_work_of_lengthy_requests() -> None:
    """A pause of the endpoint does as well. It was believed at once, and nothing that was sent could show better."""
    fleet = Fleet("least-work", names="a b")
    teach_lengthy(fleet, "/poll")
    hold_up(fleet, "a", "/poll")
    assert not counts(fleet, "a", "/poll")
    hold_up(fleet, "a", "/poll")
    assert counts(fleet, "a", "/poll")


def test_one_late_answer_at_an_endpoint_makes_no_work_of_those_that_leave_room_at_the_others() -> None:
    """It did once two others had shown something, whatever that was; and then the endpoint was left for as long."""
    fleet = Fleet("least-work", names="a b")
    teach_lengthy(fleet, "/poll")
    for _ in range(3):
        leave_room(fleet, "b", "/poll")
    hold_up(fleet, "a", "/poll")
    assert not counts(fleet, "a", "/poll")
    hold_up(fleet, "a", "/poll")
    assert counts(fleet, "a", "/poll")
    assert not counts(fleet, "b", "/poll")


def test_a_lengthy_request_that_its_client_gave_up_says_nothing() -> None:
    """The one answered before it was blamed, again for each, and the late answer for all the time since then."""
    fleet = Fleet("least-work", names="a b")
    teach_lengthy(fleet, "/poll")
    fleet.now += 1000.0
    for _ in range(3):
        poll, cheap = send(fleet, "a", "/poll"), send(fleet, "a", "/cheap")
        fleet.now += 5.0
        poll.close(CLIENT_LEFT, fleet.now)
        answer(fleet, cheap, 5.0)
        assert cheap.job is not None
        assert cheap.job.service <= 10.0
    assert not counts(fleet, "a", "/poll")


@pytest.mark.parametrize("strategy", ["least-work", "least-response-time"])
def test_an_endpoint_is_not_slow_where_a_request_waited_for_a_lengthy_one(strategy: str) -> None:
    """Until it was known that it holds others up, they were believed to be worked on beside it for all that time."""
    fleet = Fleet(strategy, names="a b")
    teach_lengthy(fleet, "/report")
    pace, latency = fleet["a"].work.pace, fleet["a"].latency
    before = pace.logarithm
    hold_up(fleet, "a", "/report")
    assert pace.logarithm == pytest.approx(before, abs=0.2)
    assert latency.value < 1.1 * fleet.pool.costs.mean


def test_a_silent_endpoint_is_tried_while_the_others_are_busy() -> None:
    """Where a kind that was short comes to wait for something all fell silent in turn, and the last got everything."""
    fleet = Fleet("least-work", names="a b")
    teach(fleet)
    send(fleet, "a", "/cheap")
    answer(fleet, send(fleet, "b", "/cheap"), 0.01)
    fleet.now += 60.0
    assert fleet["a"].work.silence(fleet.now) > 50.0
    for _ in range(4):
        send(fleet, "b", "/dear")
    chosen = []
    for _ in range(4):
        lease = fleet.lease(request=get("/cheap"))
        lease.sent(fleet.now)
        chosen.append(lease.endpoint.address[0])
    assert chosen == ["a", "b", "b", "b"], "one request tries it"


def test_what_has_waited_for_long_and_is_overtaken_at_work_is_not_lengthy() -> None:
    """Where much waits all that is answered has waited for long, and of two workers one ends before the other."""
    fleet = Fleet("least-work", names="a b")
    teach(fleet)
    queue = [send(fleet, "a", "/cheap") for _ in range(8)]
    fleet.now += 60.0
    answer(fleet, queue.pop(0))
    for _ in range(3):
        answer(fleet, queue.pop(1), 0.01)
    assert fleet["a"].work.lengthy.aside == 0


def test_a_request_that_others_overtake_for_long_is_laid_aside_whatever_its_kind() -> None:
    """It counted as work, and its endpoint as busy for long, since its kind is known to be short."""
    fleet = Fleet("least-work", names="a b")
    teach(fleet)
    long = send(fleet, "a", "/cheap")
    fleet.now += 60.0
    answer(fleet, send(fleet, "a", "/cheap"), 0.01)
    work = long.endpoint.work
    assert (work.waits, work.lengthy.aside) == (0, 1)
    answer(fleet, long)
    assert (work.lengthy.present, work.lengthy.aside) == (0, 0)


def test_an_endpoint_is_slow_where_a_request_is_late_though_lengthy_ones_leave_room() -> None:
    """Its time counted from when the last of these had ended: an endpoint that turned slow looked fast."""
    fleet = Fleet("least-work", names="a b")
    teach_lengthy(fleet, "/poll")
    for _ in range(3):
        leave_room(fleet, "a", "/poll")
    before = fleet["a"].work.pace.logarithm
    hold_up(fleet, "a", "/poll")
    assert fleet["a"].work.pace.logarithm > before + 0.2


def test_long_polls_and_reports_are_judged_apart() -> None:
    """Each was taken for what the other had shown last."""
    fleet = Fleet("least-work", names="a b")
    teach_lengthy(fleet, "/poll", "/report")
    for name in "ab" * 3:
        hold_up(fleet, name, "/report")
        leave_room(fleet, name, "/poll")
    for name in "ab":
        assert counts(fleet, name, "/report")
        assert not counts(fleet, name, "/poll")


def test_endpoints_that_wait_with_a_long_poll_and_those_that_do_not_are_judged_apart() -> None:
    fleet = Fleet("least-work", names="a b")
    teach_lengthy(fleet, "/poll")
    for _ in range(4):
        hold_up(fleet, "a", "/poll")
        leave_room(fleet, "b", "/poll")
    assert counts(fleet, "a", "/poll")
    assert not counts(fleet, "b", "/poll")


def test_what_was_sent_before_its_kind_was_known_to_be_lengthy_is_laid_aside_everywhere() -> None:
    """An endpoint that had got nothing else since then counted as silent until that was answered."""
    fleet = Fleet("least-work", names="a b")
    teach(fleet)
    first = send(fleet, "a", "/poll")
    answer(fleet, send(fleet, "b", "/poll"), 60.0)
    assert first.endpoint.work.silence(fleet.now) == 0.0
    fleet.lease(request=get("/cheap"))
    assert first.endpoint.work.waiting == 0


def test_a_lengthy_request_is_no_work_to_other_replicas_until_it_is_known_to_hold_others_up() -> None:
    """They would send nothing there until it is answered: p99 of four replicas was up to 7 times least-connections'."""
    fleet = Fleet("least-work", names="a b")
    for path, seconds in [("/cheap", 0.01)] * 40 + [("/poll", 60.0)] * 4:
        answer(fleet, send(fleet, "a", path), seconds)
    costs = fleet.pool.costs
    poll = send(fleet, "a", "/poll")
    assert costs.distinct
    assert not costs.bounded
    assert fleet.pool.work_to_report(poll.endpoint) == 0.0
    teach_lengthy(fleet, "/poll")
    before = fleet.pool.work_to_report(poll.endpoint)
    send(fleet, "a", "/poll")
    assert fleet.pool.work_to_report(poll.endpoint) - before <= costs.mean


@pytest.mark.parametrize(
    ("workers", "share", "extra"),
    [
        (1, 0.6, (Sent("/poll", 1.0 / 241.0, 0.0, "fixed", idle=2.0), Sent("/report", 0.4 / 241.0, 1.0))),
        (2, 0.6, (Sent("/report", 0.8 / 480.8, 1.0, method="POST", upload=0.5),)),
    ],
    ids=["a few long polls and reports", "reports that are uploaded"],
)
def test_reports_drive_the_others_to_no_few_endpoints(workers: int, share: float, extra: tuple[Sent, ...]) -> None:
    """Endpoints that were believed to be busy for long got nothing: p99 was 5 and 4 times least-connections'."""
    kinds = (Sent("/items", 1.0 - sum(each.share for each in extra), 0.01, "exponential"), *extra)
    setting = Setting((Script(workers),) * 4, Traffic("kinds", kinds=kinds), share + 0.1, 9000)
    assert short(setting, "least-work")[1] <= 1.1 * short(setting, "least-connections")[1]


def test_twenty_long_polls_at_each_endpoint_are_no_work() -> None:
    """Taken for work, they made endpoints of four workers look as if they worked on twenty at once."""
    kinds = (Sent("/items", 0.88, 0.005), Sent("/report", 0.1, 0.1), Sent("/poll", 0.02, 0.0, "fixed", idle=5.0))
    setting = Setting((Script(4),) * 4, Traffic("kinds", kinds=kinds), load=0.7, requests=15000)
    found = study(setting, ["least-work", "least-connections"], (1,)).summaries()
    assert found["least-work"].p50 < 1.2 * found["least-connections"].p50


def test_of_two_endpoints_the_choice_for_a_long_poll_is_explained_as_it_is_made() -> None:
    fleet = Fleet("least-work", names="a b")
    teach(fleet)
    poll = get("/poll")
    fleet["a"].work.costs.kinds.of(poll).parked = True
    fleet.lease(request=get("/cheap")).sent(fleet.now)
    decision = fleet.pool.explain(poll, fleet.now)
    assert decision.chosen == fleet.lease(request=poll).endpoint.address


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_scores_lower_than_what_is_chosen_whatever_paces_are_learned(workers: int) -> None:
    """Of endpoints with a pace that differs by too little to count, those that were at work were looked at too late."""
    fleet, random = Fleet("least-work", "a b c d"), Random(1)
    free = {name: [fleet.now] * workers for name in "abcd"}
    ends: list[tuple[float, int, Lease]] = []
    compared = 0
    for number in range(1500):
        fleet.now += random.expovariate(110 * workers)
        while ends and ends[0][0] <= fleet.now:
            at, _, lease = heappop(ends)
            lease.first_byte(at)
            lease.close(OK, at)
        request, seconds = (get("/dear"), 0.06) if random.random() < 0.1 else (get("/cheap"), 0.008)
        strategy = fleet.pool._strategy
        scores = {each: strategy.score(each, request, fleet.now) for each in fleet.pool.endpoints}
        lease = fleet.lease(request=request)
        assert scores[lease.endpoint] <= 1.01 * min(scores.values())
        compared += fleet.pool.costs.distinct and lease.endpoint.in_flight > workers
        lease.sent(fleet.now)
        name = lease.endpoint.spec.host
        seconds *= random.uniform(0.9, 1.3) * (3.5 if name == "d" else 1.0)
        end = max(heappop(free[name]), fleet.now) + seconds
        heappush(free[name], end)
        heappush(ends, (end, number, lease))
    assert compared > 40, "else no endpoint was chosen that is at work"


def test_a_slow_endpoint_gets_its_share_and_no_more() -> None:
    setting = Setting(tuple(named("one-slow", 4, 4)), load=0.7, requests=4000)
    found = run(setting, "least-work", 1)
    assert found.shares[3] < 0.05
    assert found.p99 < 0.08


@pytest.mark.parametrize("load", [0.7, 0.9])
def test_where_requests_are_alike_it_is_least_connections(load: float) -> None:
    """Estimates that differ by chance alone made its p99 up to 1.016 times that."""
    setting = Setting(tuple(named("equal", 4, 4)), load=load, requests=4000)
    found = study(setting, ["least-work", "least-connections"], (1, 2)).summaries()
    assert found["least-work"].mean == pytest.approx(found["least-connections"].mean, rel=0.003)
    assert found["least-work"].p99 == pytest.approx(found["least-connections"].p99, rel=0.006)


@pytest.mark.parametrize(
    ("costs", "distinct"),
    [
        (lambda random, number: random.expovariate(1.0), False),
        (lambda random, number: random.expovariate(1.0 + 0.3 * (number % 2)), False),
        (lambda random, number: random.expovariate(1.0 + 9.0 * (number % 2)), True),
        (lambda random, number: random.uniform(0.9, 1.1), False),
        (lambda random, number: 1.0 + number, True),
    ],
    ids=["one kind", "nearly alike", "ten times as expensive", "all the same", "each its own"],
)
def test_requests_are_distinct_where_their_kinds_say_which_has_more_to_do(
    costs: Callable[[Random, int], float], distinct: bool
) -> None:
    random = Random(1)
    fleet = Fleet("least-work", names="a")
    for number in range(400):
        lease = fleet.lease(request=get(f"/{'abcd'[number % 4]}"))
        lease.sent(fleet.now)
        fleet.now += costs(random, number % 4)
        lease.first_byte(fleet.now)
        lease.close(OK, fleet.now)
    assert fleet["a"].work.costs.distinct is distinct


@pytest.mark.parametrize("seed", [1, 3])
def test_expensive_requests_that_time_out_drive_the_others_to_no_few_endpoints(seed: int) -> None:
    """A time-out counted 20 mean costs against its endpoint: 223 and 111 of these requests failed, and now 6."""
    rules = Rules(response_timeout=1.0, client_timeout=5.0)
    setting = Setting(tuple(named("equal", 16, 1)), Traffic("heavy-unknown", 0.03), 0.7, 3000, rules=rules)
    assert run(setting, "least-work", seed).failures < 15


@pytest.mark.parametrize("weights", [(5.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 0.1, 0.1)])
def test_idle_endpoints_take_turns_by_their_weights(weights: tuple[float, ...]) -> None:
    """The heaviest took every request where one came after the other."""
    fleet = Fleet("least-work")
    for name, weight in zip("abc", weights, strict=True):
        fleet.add(name, weight=weight)
    shares = fleet.share(600)
    assert [shares[name] for name in "abc"] == pytest.approx([weight / sum(weights) for weight in weights], abs=0.01)


def test_the_work_that_waits_at_an_endpoint_is_the_sum_of_its_requests() -> None:
    fleet = Fleet("least-work", names="a b")
    teach(fleet)
    random = Random(1)
    leases = []
    for _ in range(300):
        fleet.now += 0.001
        leases.append(fleet.lease(request=get(random.choice(["/cheap", "/dear", "/unknown"]))))
        leases[-1].sent(fleet.now)
        if len(leases) > 40:
            ended = leases.pop(random.randrange(len(leases)))
            ended.first_byte(fleet.now)
            ended.close(OK, fleet.now)
        for name in "ab":
            own = [lease.job.expected for lease in leases if lease.endpoint is fleet[name] and lease.job]
            assert fleet[name].work.waiting_cost == pytest.approx(sum(own))


def test_an_endpoint_that_no_longer_works_on_two_at_once_gets_no_more_than_the_others() -> None:
    """It was believed to, by a few answers that overtook others, as of a service whose event loop shuffles them."""
    fleet = Fleet("least-work", names="a b")

    def ask(name: str, order: tuple[int, ...]) -> None:
        leases = [fleet.lease("ab".replace(name, "")) for _ in order]
        for lease in leases:
            lease.sent(fleet.now)
        for number in order:
            fleet.now += 0.01
            leases[number].first_byte(fleet.now)
            leases[number].close(OK, fleet.now)

    for name in "ab" * 20:
        ask(name, (0, 1, 2))
    for _ in range(5):
        ask("a", (1, 0, 2))
    assert fleet["a"].work.concurrency.at_once == 2
    for name in "ab" * 60:
        ask(name, (0, 1, 2))
    for _ in range(4):
        fleet.lease().sent(fleet.now)
    assert (fleet["a"].in_flight, fleet["b"].in_flight) == (2, 2)


def test_connections_in_tcp_mode_go_by_their_number_however_long_connecting_takes() -> None:
    fleet = Fleet("least-work", names="a b")

    def connect(*tried: str) -> Lease:
        lease = fleet.lease(*tried, request=RequestInfo("192.0.2.1"))
        lease.sent(fleet.now)
        fleet.now += 0.02 if lease.endpoint is fleet["b"] else 0.001
        lease.first_byte(fleet.now)
        return lease

    for tried in "ab" * 100:
        connect(tried).close(OK, fleet.now)
    for _ in range(200):
        connect()
    assert (fleet["a"].in_flight, fleet["b"].in_flight) == (100, 100)


def test_what_lasts_is_shared_by_number_where_one_endpoint_answers_sooner() -> None:
    """WebSockets, downloads: by pace alone the slower would hold an eighth."""
    fleet = Fleet("least-work", names="a b")

    def open_one(*tried: str) -> Lease:
        lease = fleet.lease(*tried)
        lease.sent(fleet.now)
        fleet.now += 0.04 if lease.endpoint is fleet["b"] else 0.01
        lease.first_byte(fleet.now)
        return lease

    for _ in range(500):
        for tried in "ab":
            open_one(tried).close(OK, fleet.now)
        open_one()
    assert fleet["b"].in_flight > 180
