"""`top` and `explain`: a running balancer in the terminal, read from its admin port.

Above 300 lines because both commands lay out the same rows, by the same few functions.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from balancer.admin_trust import AdminTrust, UnreadableError
from balancer.settings import SettingsError, value_of

Json = dict[str, Any]

TIMEOUT = 5.0
"""Seconds that the admin port has to answer."""

PIPE_WIDTH = 500
"""Columns of the output where it does not go to a terminal."""

MIN_REASON = 24
"""Columns that the reason why an endpoint is out has at least, where it is shown."""

COLOURS = {"ready": "green", "slow-start": "cyan", "at-limit": "yellow", "backoff": "yellow", "drained": "blue"}
"""By state; every other state is red."""


class Unreachable(Exception):
    """The admin port does not answer as it should; says why and what to do."""


class Admin:
    """The admin port of one balancer."""

    def __init__(self, url: str, trust: AdminTrust | None = None) -> None:
        """`url` as http://host:port; `trust` where it is https, else whom the system trusts. Raises Unreachable when it
        is none, and where a file cannot be read.
        """
        if not url.startswith(("http://", "https://")):
            raise Unreachable(f"--admin {url}: must begin with http:// or https://")
        self.url = url.rstrip("/")
        self._trust = trust

    def get(self, path: str) -> Json:
        """The JSON at `path`, which needs no token. Raises Unreachable."""
        try:
            handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]  # it is not meant for this
            if self._trust is not None and self.url.startswith("https://"):
                handlers.append(urllib.request.HTTPSHandler(context=self._trust.context()))
            opener = urllib.request.build_opener(*handlers)
            with opener.open(self.url + path, timeout=TIMEOUT) as response:
                value: Json = json.load(response)
                return value
        except urllib.error.HTTPError as error:
            error.close()  # It is the response too, in a temporary file.
            raise Unreachable(f"{self.url}{path} answered {error.code} {error.reason}") from None
        except UnreadableError as error:
            raise Unreachable(str(error)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                remedy = "--cacert FILE names whom to trust"
                raise Unreachable(f"{self.url} is not trusted ({reason.verify_message}); {remedy}") from None
            raise Unreachable(f"no balancer's admin port at {self.url} ({reason}); --admin URL names another") from None


def main(arguments: argparse.Namespace) -> int:
    """Run `top` or `explain` until it is done or Ctrl-C; returns the exit status."""
    try:
        url = arguments.admin or admin_url(os.environ)
        admin = Admin(url, admin_trust(os.environ, url, arguments.cacert))
        if arguments.command == "top":
            top(admin, terminal(), arguments.interval, arguments.once)
        else:
            explain(admin, terminal(), arguments.number, arguments.follow)
    except (Unreachable, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def admin_url(environ: Mapping[str, str]) -> str:
    """Where the balancer of these settings has its admin port, as seen from this machine. Raises SettingsError."""
    host = str(value_of("admin_host", environ, Path(".env"))).split(",")[0].strip()
    port = value_of("admin_port", environ, Path(".env"))
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (a wildcard is reached by loopback)
    scheme = "https" if value_of("admin_tls_cert", environ, Path(".env")) else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def admin_trust(environ: Mapping[str, str], url: str, authorities: str | None) -> AdminTrust | None:
    """Whom to trust at `url`: the authorities of a file, else the very certificate of the settings, whatever its name;
    None: whom the system trusts. Raises SettingsError.
    """
    if authorities is not None:
        return AdminTrust(None, Path(authorities), urllib.parse.urlsplit(url).hostname)
    certificate = value_of("admin_tls_cert", environ, Path(".env"))
    return AdminTrust(Path(str(certificate)), None, None) if certificate else None


def terminal() -> Console:
    """Where the output goes. A pipe has no width, so lines there are as long as they need to be."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=PIPE_WIDTH if piped else None)


def top(admin: Admin, console: Console, interval: float, once: bool) -> None:
    """Show the endpoints again and again; where no terminal can show that, or with `once`, print them once."""
    view = TopView()
    view.look(admin, time.monotonic())
    if once or not console.is_terminal:
        console.print(view.render(console.width, height=10_000))
        return

    def screen() -> RenderableType:
        return view.render(console.width, console.height)

    with Live(screen(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(max(0.1, interval))
            try:
                view.look(admin, time.monotonic())
            except Unreachable as error:  # it may be restarting: say so and go on
                view.fault = str(error)
            live.update(screen(), refresh=True)


class TopView:
    """The endpoints at the latest look, with the rates since the one before."""

    def __init__(self) -> None:
        self.fault = ""
        self._endpoints: list[Json] = []
        self._strategy: Json = {}
        self._answers: dict[tuple[str, str], int] = {}
        self.rates: dict[tuple[str, str], float] = {}
        """Answers a second, by cluster and address; empty at the first look."""
        self._at: float | None = None

    def look(self, admin: Admin, now: float) -> None:
        """Ask the admin port; `now` in seconds."""
        self._endpoints = admin.get("/api/endpoints")["endpoints"]
        self._strategy = admin.get("/api/strategy")
        answers = {_key(endpoint): sum(endpoint["answered"].values()) for endpoint in self._endpoints}
        if self._at is not None and now > self._at:
            passed = now - self._at
            # A count that fell is another process's: the balancer was restarted.
            grown = {key: count - self._answers.get(key, count) for key, count in answers.items()}
            self.rates = {key: max(0, growth) / passed for key, growth in grown.items()}
        self._answers, self._at, self.fault = answers, now, ""

    def render(self, width: int, height: int) -> RenderableType:
        """What fits into `width` columns and `height` lines. Addresses are never cut: other columns give way."""
        shown = self._endpoints[: max(1, height - 6)]
        cells = {column: [self._cell(column, endpoint) for endpoint in shown] for column in COLUMNS}
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        chosen = fitting({column: [cell.plain for cell in texts] for column, texts in cells.items()}, width)
        for column, columns in chosen.items():
            table.add_column(column.title, justify="right" if column.number else "left", no_wrap=True, width=columns)
        for row in zip(*(cells[column] for column in chosen), strict=True):
            table.add_row(*row)
        more = len(self._endpoints) - len(shown)
        parts: list[RenderableType] = [self._head(), Text(), table]
        if more:
            parts.append(Text(f"… and {more} more", style="dim"))
        return Group(*parts)

    def _head(self) -> Text:
        out = sum(not endpoint["eligible"] for endpoint in self._endpoints)
        in_flight = sum(endpoint["in_flight"] for endpoint in self._endpoints)
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(printable(self._strategy.get("strategy", "?")), style="bold")
        head.append(f"   {len(self._endpoints)} endpoints, {out} out   {in_flight} in flight   ")
        head.append(
            f"{sum(self.rates.values()):.0f} answers/s   replica {printable(self._strategy.get('replica', '?'))}"
        )
        if self.fault:
            head.append(f"\n{printable(self.fault)}", style="bold red")
        return head

    def _cell(self, column: Column, endpoint: Json) -> Text:
        text = printable(column.text(endpoint, self.rates))
        if column.title == "state":
            return Text(text, style=COLOURS.get(text, "red"))
        return Text(text, style="dim" if column.title == WHY else "")


Rates = Mapping[tuple[str, str], float]
"""Answers a second, by cluster and address."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `top`."""

    title: str
    text: Callable[[Json, Rates], str]
    """The cell for an endpoint, given all rates by cluster and address."""
    rank: int
    """A narrow terminal leaves out the columns with the highest ranks."""
    number: bool = True


def _latency(endpoint: Json, _: Rates) -> str:
    return "" if endpoint["latency"] is None else f"{endpoint['latency'] * 1000:.1f}"


def _rate(endpoint: Json, rates: Rates) -> str:
    rate = rates.get(_key(endpoint))
    return "" if rate is None else f"{rate:.0f}"


def _share(endpoint: Json, rates: Rates) -> str:
    rate, total = rates.get(_key(endpoint)), sum(rates.values())
    return "" if rate is None or not total else f"{rate / total:.0%}"


def _connections(endpoint: Json, _: Rates) -> str:
    """Connections open to it: over HTTP/2, what is in flight shares them."""
    return str(endpoint["connections"]["open"] or "")


def _cluster(endpoint: Json, _: Rates) -> str:
    cluster = _key(endpoint)[0]
    return "" if cluster == "default" else cluster


WHY = "why it is out"

COLUMNS = (
    Column("endpoint", lambda endpoint, _: str(endpoint["address"]), 0, number=False),
    Column("pod", lambda endpoint, _: str(endpoint["pod"] or ""), 6, number=False),
    Column("cluster", _cluster, 6, number=False),
    Column("state", lambda endpoint, _: str(endpoint["state"]), 1, number=False),
    Column("in flight", lambda endpoint, _: str(endpoint["in_flight"]), 2),
    Column("conns", _connections, 11),
    Column("latency ms", _latency, 4),
    Column("req/s", _rate, 5),
    Column("share", _share, 9),
    Column("5xx", lambda endpoint, _: str(endpoint["answered"].get("5xx", 0)), 7),
    Column("failed", lambda endpoint, _: str(sum(endpoint["failed"].values())), 8),
    Column("pace", lambda endpoint, _: f"{endpoint['work']['pace']:.2f}" if endpoint.get("work") else "", 12),
    Column("weight", lambda endpoint, _: f"{endpoint['weight_in_force']:g}", 10),
    Column(WHY, lambda endpoint, _: str(endpoint["ineligible_reason"] or ""), 3, number=False),
)
"""From left to right."""


def fitting(cells: Mapping[Column, list[str]], width: int) -> dict[Column, int]:
    """The columns that fit into `width`, by rank, each with its own width. Empty ones are left out."""
    needed = {column: max(len(column.title), *map(len, texts), 0) for column, texts in cells.items() if any(texts)}
    least = {column: min(size, MIN_REASON) if column.title == WHY else size for column, size in needed.items()}
    room = width + 1  # the last column needs no gap behind it
    chosen = set()
    for column in sorted(needed, key=lambda column: column.rank):
        if column.rank == 0 or least[column] < room:
            chosen.add(column)
            room -= least[column] + 1
    # Only the reason is shorter than it needs to be: it gets what is left.
    return {column: min(size, least[column] + max(0, room)) for column, size in needed.items() if column in chosen}


def _key(endpoint: Json) -> tuple[str, str]:
    """An address may be in several clusters."""
    return endpoint.get("cluster", "default"), endpoint["address"]


def explain(admin: Admin, console: Console, number: int, follow: bool) -> None:
    """Show the latest decisions, the newest last, and with `follow` those that come."""
    seen = 0.0
    limit = max(1, min(1000, number))
    while True:
        decisions = admin.get(f"/api/decisions?limit={limit}")["decisions"]
        for decision in reversed(decisions):
            if decision["at"] > seen:  # no two have the same time
                console.print(decision_text(decision))
        if not follow:
            if not decisions:
                console.print("No decision has been recorded yet: it takes a request.", style="dim")
            return
        seen = max((decision["at"] for decision in decisions), default=seen)
        limit = 1000
        time.sleep(1.0)


def decision_text(decision: Json) -> RenderableType:
    """One decision: who asked for what, who won and by what, and the candidates with their scores."""
    head = Text()
    at = datetime.fromtimestamp(decision["at"]).astimezone()
    head.append(f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}  ", style="dim")
    head.append(printable(f"{decision['client']} {decision['method']} {decision['path']}".strip()))
    head.append(" → ")
    if decision["chosen"] is None:
        head.append("no endpoint", style="bold red")
    else:
        head.append(printable(decision["chosen"]), style="bold green")
    if decision.get("cluster", "default") != "default":
        head.append(f"  {printable(decision['cluster'])}", style="dim")
    head.append(f"  {printable(decision['strategy'])}: {printable(decision['by'])}")
    if decision.get("cost") is not None:
        head.append(f", expected to cost {_milliseconds(decision['cost'])} ms")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="dim")
    longest = max((len(candidate["address"]) for candidate in decision["candidates"]), default=0)
    table.add_column("candidate", no_wrap=True, min_width=longest)
    with_work = any(candidate.get("wait") is not None for candidate in decision["candidates"])
    titles = ("score", "in flight", *(("wait ms", "pace") if with_work else ()), "latency ms", "weight")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("out because")
    for candidate in decision["candidates"]:
        won = candidate["address"] == decision["chosen"]
        latency = candidate["latency"]
        table.add_row(
            Text(printable(candidate["address"]), style="green" if won else ""),
            Text("" if candidate["score"] is None else f"{candidate['score']:.6g}"),
            Text(str(candidate["in_flight"])),
            *([Text(_milliseconds(candidate["wait"])), Text(f"{candidate['pace']:.2f}")] if with_work else []),
            Text("" if latency is None else f"{latency * 1000:.1f}"),
            Text("" if candidate["weight"] is None else f"{candidate['weight']:g}"),
            Text(printable(candidate["ineligible_reason"] or ""), style="dim"),
        )
    others = ", ".join(f"{name}: {address}" for name, address in sorted(decision["others"].items()))
    return Group(head, table, Text(f"  others: {printable(others)}\n" if others else "", style="dim"))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g}" if seconds < 1.0 else f"{seconds * 1000:.0f}"


def printable(text: object) -> str:
    """What a client sent, without control characters that the terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
