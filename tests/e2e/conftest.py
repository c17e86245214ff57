"""The cluster, the release in it, the traffic that never stops, and the table at the end."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "lb"
NAMESPACE = os.environ.get("LB_E2E_NAMESPACE") or f"lb-e2e-{os.getpid()}"
RELEASE = "lb"
UNROUTED = 1
"""Connections in a whole run for which the node may find no route. A balancer that leaves too early makes dozens."""

Json = dict[str, Any]


def run(*command: str, stdin: str | None = None, seconds: float = 180) -> str:
    """The command's standard output. Fails with what it said."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise AssertionError(f"{shlex.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def until(true: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """What `true` returns once it is true; while the API is away it is not."""
    end = time.monotonic() + seconds
    while True:
        last: AssertionError | None = None
        try:
            if found := true():
                return found
        except AssertionError as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}") from last
        time.sleep(0.2)


class Cluster:
    """One release of the chart in a namespace of its own."""

    namespace = NAMESPACE

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 180) -> str:
        return run("kubectl", "--namespace", NAMESPACE, *arguments, stdin=stdin, seconds=seconds)

    def helm(self, *values: str) -> None:
        """Install or upgrade to the chart's defaults and `values`, and wait until that is there and the old is gone."""
        if delay := os.environ.get("LB_E2E_DRAIN_DELAY"):
            values = (f"balancer.settings.drainDelay={delay}", *values)
        sets = [part for value in values for part in ("--set", value)]
        run(
            *("helm", "upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--reset-values"),
            *("--wait", "--timeout", "4m", *sets),
            seconds=260,
        )
        self.settled()

    def pods(self, component: str = "") -> list[Json]:
        selector = f"app.kubernetes.io/instance={RELEASE}"
        if component:
            selector += f",app.kubernetes.io/component={component}"
        found: list[Json] = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return found

    def names(self, component: str) -> list[str]:
        """The pods that are ready and not leaving."""
        return [pod["metadata"]["name"] for pod in self.pods(component) if is_ready(pod) and not is_leaving(pod)]

    def settled(self, seconds: float = 120) -> None:
        """Wait until every pod is ready and none is leaving."""
        until(
            lambda: all(is_ready(pod) and not is_leaving(pod) for pod in self.pods()),
            "all pods ready, old ones gone",
            seconds,
        )

    def rolled(self, *deployments: str) -> None:
        for deployment in deployments:
            self.kubectl("rollout", "status", f"deployment/{deployment}", "--timeout=180s")
        self.settled()

    def changes(self) -> list[str]:
        """What has happened in the namespace, latest last: to tell what a failure goes with."""
        try:
            return self.kubectl("get", "events", "--sort-by=.lastTimestamp").splitlines()[-60:]
        except AssertionError as error:
            return [str(error)]

    def admin(self, pod: str, path: str) -> Json:
        """What a balancer's admin port answers, by way of the API server."""
        found: Json = json.loads(
            self.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8081/proxy{path}")
        )
        return found


def is_ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def is_leaving(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


@dataclass
class Row:
    """What one case came to."""

    case: str
    seconds: float
    requests: int
    failed: int
    slowest: float
    """Seconds of the slowest request."""
    served: Counter[str]
    failures: list[str]
    unrouted: list[str]
    """Connections for which the node found no route, made again."""
    may_fail: str
    """Why failures are no fault here; "" where there must be none."""


@dataclass
class Load:
    """The pod of load.py, and what it has told so far."""

    cluster: Cluster
    rows: list[Row] = field(default_factory=list)
    lines: list[Json] = field(default_factory=list)

    def mark(self) -> int:
        """The number of a line that was written after this call, once it is there. Requests that began before a failing
        moment and end after it are in the next.
        """

        def told() -> list[Json]:
            text = self.cluster.kubectl("logs", "pod/load", "--tail=-1")
            return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

        before = len(until(told, "the load's lines", 120))
        self.lines = until(lambda: len(found := told()) >= before + 2 and found, "two more lines of the load", 60)
        return len(self.lines) - 1

    @contextmanager
    def case(self, name: str, may_fail: str = "") -> Iterator[Row]:
        """Everything asked within is counted for `name`; unless it `may_fail`, one failed request fails the test."""
        first, started = self.mark(), time.monotonic()
        row = Row(name, 0, 0, 0, 0, Counter(), [], [], may_fail)
        self.rows.append(row)
        try:
            yield row
        finally:
            last = self.mark()
            row.seconds = time.monotonic() - started
            begun = self.lines[first]
            for line in self.lines[first + 1 : last + 1]:
                row.served.update(line["served"])
                row.failures += line["failures"]
                row.unrouted += line["unrouted"]
                row.slowest = max(row.slowest, line["slowest"])
            row.requests = self.lines[last]["requests"] - begun["requests"]
            row.failed = self.lines[last]["failed"] - begun["failed"]
        assert row.requests, "nothing was asked"
        assert may_fail or not row.failed, "\n".join(
            [f"{row.failed} of {row.requests} requests failed", *row.failures[:20], *self.cluster.changes()]
        )
        unrouted = [each for row in self.rows if not row.may_fail for each in row.unrouted]
        assert may_fail or len(unrouted) <= UNROUTED, "\n".join([*unrouted, *self.cluster.changes()])

    def recent(self, requests: int = 150) -> Counter[str]:
        """Who served that many requests from this call on."""
        first = self.mark()

        def served() -> Counter[str] | None:
            counted = Counter[str]()
            for line in self.lines[first:]:
                counted.update(line["served"])
            if counted.total() >= requests:
                return counted
            self.mark()
            return None

        found: Counter[str] = until(served, f"{requests} more requests")
        return found


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    for program in ("kubectl", "helm"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not on the PATH")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    if loader := os.environ.get("LB_E2E_LOAD"):
        run(*shlex.split(loader), f"lb-balancer:{version}", f"lb-pi:{version}", seconds=300)
    made = Cluster()
    made.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", seconds=180)
    made.kubectl("create", "namespace", NAMESPACE)
    yield made
    if not os.environ.get("LB_E2E_KEEP"):
        made.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="session")
def load(cluster: Cluster, request: pytest.FixtureRequest) -> Load:
    """Starts the traffic, which waits for the release's first answer."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    script = {"load.py": (Path(__file__).parent / "load.py").read_text()}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "load"}, "data": script}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "load"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "load",
                    "image": f"lb-pi:{version}",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "/load/load.py", f"http://{RELEASE}.{NAMESPACE}.svc:8080"],
                    "volumeMounts": [{"name": "load", "mountPath": "/load"}],
                }
            ],
            "volumes": [{"name": "load", "configMap": {"name": "load"}}],
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [config, pod]}))
    cluster.kubectl("wait", "pod/load", "--for=condition=Ready", "--timeout=60s")
    made = Load(cluster)
    request.config.stash[ROWS] = made.rows
    return made


ROWS = pytest.StashKey[list[Row]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("requests of every case")
    width = max(len(row.case) for row in rows)
    terminalreporter.write_line(f"{'case':{width}}  seconds  requests  failed  slowest (s)  served by")
    for row in rows:
        note = f"  ({row.may_fail})" if row.failed and row.may_fail else ""
        terminalreporter.write_line(
            f"{row.case:{width}}  {row.seconds:7.1f}  {row.requests:8}  {row.failed:6}  {row.slowest:11.2f}  "
            f"{len(row.served):2} pods{note}"
        )
    total, failed = sum(row.requests for row in rows), sum(row.failed for row in rows)
    terminalreporter.write_line(f"{'all':{width}}  {sum(row.seconds for row in rows):7.1f}  {total:8}  {failed:6}")
    for row in rows:
        for failure in row.failures:
            terminalreporter.write_line(f"failed in {row.case!r}: {failure}")
        for connection in row.unrouted:
            terminalreporter.write_line(f"no route in {row.case!r}: {connection}")
