"""The command line, as a person at a terminal meets it: real processes, a real balancer behind `top` and `explain`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from benchmarks.ports import free_port
from rich.console import Console
from tests.balancer.proxy.wire.process import Balancer

from balancer.cli import main
from balancer.cli.terminal import Admin, TopView, Unreachable, admin_url, decision_text, printable
from balancer.settings import table

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("LB_")}
RUN = [sys.executable, "-m", "balancer"]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the balancer's command line to its end."""
    return subprocess.run(
        [*RUN, *arguments],
        env=CLEAN | {"COLUMNS": "200"} | environ,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@dataclass
class Said:
    """What a command said before it ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Said]:
    """Run a command in this process, which is quicker than starting one."""
    for name in set(os.environ) - set(CLEAN):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str, **environ: str) -> Said:
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            status = main(arguments)
        said = capfd.readouterr()
        return Said(status, said.out, said.err)

    return call


# Help, version, check.


def test_help_tells_every_setting_and_exits_with_0() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "python -m balancer top" in done.stdout
    for row in table():
        assert f"{row.variable}={row.default}" in done.stdout


def test_version_is_the_packages(command: Callable[..., Said]) -> None:
    assert re.fullmatch(r"lb \d+\.\d+\.\d+\n", command("--version").stdout)


@pytest.mark.parametrize("argument", ["--help", "--version", "--check"])
def test_answers_that_need_no_server_import_none(argument: str) -> None:
    program = (
        "import sys; from balancer.cli import main; main(sys.argv[1:]); "
        "print('BAD', *{'aiohttp', 'uvloop', 'kubernetes', 'rich', 'dns', 'prometheus_client'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, argument],
        env=CLEAN | {"LB_BACKENDS": "a:1"},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("BAD\n")


def test_check_of_valid_settings_exits_with_0(command: Callable[..., Said]) -> None:
    done = command("--check", LB_BACKENDS="a:1")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--check"], []])
def test_wrong_settings_stop_the_start_with_a_line_each(arguments: list[str]) -> None:
    done = run(*arguments, LB_BACKENDS="a:1", LB_PORT="x", LB_EJECTAFTER="1")
    assert done.returncode == 2
    assert done.stdout == ""
    faults, summary = done.stderr.splitlines()[:-1], done.stderr.splitlines()[-1]
    assert [fault.split("=")[0] for fault in faults] == ["LB_EJECTAFTER", "LB_PORT"]
    assert summary.startswith("2 wrong")


def test_a_wrong_argument_exits_with_2_and_says_what_there_is() -> None:
    done = run("--chekc")
    assert done.returncode == 2
    assert "--check" in done.stderr


def test_the_env_file_of_the_working_directory_is_read(tmp_path: Path, command: Callable[..., Said]) -> None:
    (tmp_path / ".env").write_text("LB_BACKENDS=a:1\nLB_MODE=ttp\n")
    done = command("--check")
    assert done.stderr.startswith("LB_MODE=ttp: ")


def test_check_loads_a_strategy_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Said]
) -> None:
    (tmp_path / "mine.py").write_text(
        "from balancer.balancing.strategies import ByScore\n"
        "class Good(ByScore):\n    def score(self, endpoint, request, now):\n        return 0.0\n"
        "class Bad:\n    pass\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "unread.py").write_text("class X(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    mine = {"LB_BACKENDS": "a:1"}
    assert command("--check", LB_STRATEGY="mine:Good", **mine).returncode == 0
    for name, words in [
        ("mine:Bad", "no strategy"),
        ("mine:None_", "has no None_"),
        ("missing_module:X", "put its folder on PYTHONPATH"),
        ("broken:X", f"division by zero ({tmp_path}/broken.py:1)"),
        ("leaves:X", f"SystemExit: 3 ({tmp_path}/leaves.py:2)"),
        ("unread:X", f"SyntaxError: invalid syntax ({tmp_path}/unread.py:1)"),
    ]:
        for arguments in (["--check"], []):
            done = command(*arguments, LB_STRATEGY=name, **mine)
            assert done.returncode == 2
            assert done.stderr.startswith(f"LB_STRATEGY={name}: ")
            assert words in done.stderr
            assert "Traceback" not in done.stderr


def test_a_wrong_cost_key_is_named_once(command: Callable[..., Said]) -> None:
    done = command("--check", LB_BACKENDS="a:1", LB_COST_KEY="path:([")
    assert done.returncode == 2
    assert done.stderr.startswith("LB_COST_KEY=path:([: not a regular expression: ")
    assert done.stderr.count("path:([") == 1


def test_check_reads_the_backends_file(tmp_path: Path, command: Callable[..., Said]) -> None:
    file = tmp_path / "backends"
    assert "No such file" in command("--check", LB_BACKENDS_FILE=str(file)).stderr
    file.write_text("# none yet\n")
    assert "lists no endpoint" in command("--check", LB_BACKENDS_FILE=str(file)).stderr
    file.write_text("a:1\nb\n")
    assert f"LB_BACKENDS_FILE={file}: b: no port" in command("--check", LB_BACKENDS_FILE=str(file)).stderr
    file.write_text("a:1\n")
    assert command("--check", LB_BACKENDS_FILE=str(file)).returncode == 0


def test_check_loads_the_tls_files(tmp_path: Path, command: Callable[..., Said]) -> None:
    authority = trustme.CA()
    files = {}
    for name in ("one", "two"):
        made = authority.issue_cert(f"{name}.test")
        files[name] = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(str(files[name][0]))
        made.private_key_pem.write_to_path(str(files[name][1]))

    def check(cert: Path, key: Path, authorities: Path) -> str:
        tls = {"LB_TLS_CERT": str(cert), "LB_TLS_KEY": str(key), "LB_UPSTREAM_TLS_CA": str(authorities)}
        return command("--check", LB_BACKENDS="a:1", LB_UPSTREAM_TLS="on", **tls).stderr

    (cert, key), (_, other_key) = files["one"], files["two"]
    junk = tmp_path / "junk"
    junk.write_text("junk")
    assert check(cert, key, cert) == ""
    assert "the key does not belong to the certificate" in check(cert, other_key, cert)
    assert "not readable as PEM" in check(cert, key, junk)
    assert f"LB_TLS_KEY={tmp_path}: Is a directory" in check(cert, tmp_path, cert)
    assert "LB_TLS_CERT=/missing: No such file" in check(Path("/missing"), key, cert)


def test_check_loads_the_tls_files_of_the_admin_port(tmp_path: Path, command: Callable[..., Said]) -> None:
    made = trustme.CA().issue_cert("lb.test")
    cert, key, junk = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "junk"
    made.cert_chain_pems[0].write_to_path(str(cert))
    made.private_key_pem.write_to_path(str(key))
    junk.write_text("junk")
    tls = {"LB_BACKENDS": "a:1", "LB_ADMIN_TLS_CERT": str(cert), "LB_ADMIN_TLS_KEY": str(key)}
    assert command("--check", **tls, LB_PEERS_TLS_CA=str(cert)).returncode == 0
    assert f"LB_PEERS_TLS_CA={junk}: not readable as PEM" in command("--check", **tls, LB_PEERS_TLS_CA=str(junk)).stderr
    bad = command("--check", **{**tls, "LB_ADMIN_TLS_KEY": str(junk)})
    assert f"LB_ADMIN_TLS_CERT={cert}, LB_ADMIN_TLS_KEY={junk}: not readable as PEM" in bad.stderr
    assert bad.returncode == 2
    assert "set both or neither" in command("--check", LB_BACKENDS="a:1", LB_ADMIN_TLS_CERT=str(cert)).stderr
    alone = command("--check", LB_BACKENDS="a:1", LB_PEERS_TLS_NAME="lb.test")
    assert "have no effect without LB_ADMIN_TLS_CERT" in alone.stderr


def test_top_by_tls_trusts_what_it_is_given(tmp_path: Path, command: Callable[..., Said]) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    cert, key, ca, other = (tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt", "other.crt"))
    made.cert_chain_pems[0].write_to_path(str(cert))
    made.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))
    trustme.CA().cert_pem.write_to_path(str(other))
    tls = {"LB_ADMIN_TLS_CERT": str(cert), "LB_ADMIN_TLS_KEY": str(key)}
    balancer = Balancer(tmp_path / "log", settings=tls)
    try:
        port = str(balancer.admin_port)
        # As in its pod: by the settings alone, whatever name its certificate is for.
        assert "1 endpoints" in command("top", "--once", **tls, LB_ADMIN_PORT=port).stdout
        asked = ("top", "--once", "--admin", f"https://localhost:{port}")
        assert "1 endpoints" in command(*asked, "--cacert", str(ca)).stdout
        for trusted in ((), ("--cacert", str(other))):
            refused = command(*asked, *trusted)
            assert (refused.returncode, "--cacert FILE names whom to trust" in refused.stderr) == (1, True)
        assert "ca.cr cannot be used: No such file" in command(*asked, "--cacert", str(ca)[:-1]).stderr
        by_address = command("top", "--once", "--admin", f"https://127.0.0.1:{port}", "--cacert", str(ca))
        assert "not valid for '127.0.0.1'" in by_address.stderr
    finally:
        balancer.stop()


# A running balancer.


@dataclass
class Running:
    """A balancer before one backend that answers and one that refuses."""

    url: str
    admin: str
    backend: str
    dead: str
    process: subprocess.Popen[str]

    def get(self, path: str) -> int:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            assert response.read() == b"ok"
            status: int = response.status
            return status


class Backend(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    backend, dead = f"127.0.0.1:{server.server_port}", f"127.0.0.1:{free_port()}"
    environ = {
        "LB_BACKENDS": f"{backend},{dead}",
        "LB_HOST": "127.0.0.1",
        "LB_PORT": "0",
        "LB_ADMIN_PORT": "0",
        "LB_STRATEGY": "round-robin",
        "LB_HEALTH_PATH": "/",
        "LB_ACCESS_LOG": "off",
        "LB_SERVICE_HOST": "10.0.0.1",
    }
    process = subprocess.Popen(RUN, env=CLEAN | environ, cwd="/", stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(json.loads(line))
        if told[-1]["event"] == "unhealthy":
            break
    by_event = {message["event"]: message for message in told}
    assert by_event["service links ignored"]["variables"] == ["LB_SERVICE_HOST"]
    listening = by_event["listening"]
    rest = threading.Thread(target=process.stderr.read)
    rest.start()
    try:
        yield Running(
            f"http://127.0.0.1:{listening['port']}",
            f"http://127.0.0.1:{listening['admin_port']}",
            backend,
            dead,
            process,
        )
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        rest.join()
        process.stderr.close()
        server.shutdown()
        server.server_close()


def test_top_once_prints_the_endpoints_with_state_and_reason(running: Running, command: Callable[..., Said]) -> None:
    done = command("top", "--once", "--admin", running.admin)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "round-robin   2 endpoints, 1 out" in done.stdout
    assert " ready " in lines[running.backend]
    assert " unhealthy " in lines[running.dead]
    assert "health checks fail" in lines[running.dead]


def test_top_without_a_terminal_prints_once_and_ends(running: Running) -> None:
    done = run("top", "--admin", running.admin)
    assert done.returncode == 0
    assert done.stdout.count(running.backend) == 1


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_top_never_cuts_an_address(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["10.244.12.101:8000", "10.244.12.102:8000", "[2001:db8:85a3:1:2:8a2e:370:7334]:65535"]
    endpoint = {
        "state": "slow-start",
        "eligible": False,
        "in_flight": 12,
        "latency": 0.0123,
        "answered": {"5xx": 12},
        "failed": {"timeout": 3},
        "connections": {"open": 3},
        "weight_in_force": 1.0,
        "ineligible_reason": "health checks fail: connection refused by the endpoint",
    }
    endpoints = [endpoint | {"address": address, "pod": f"shop-7d9c5b6f4-{address[-4:]}"} for address in addresses]
    answers: dict[str, Any] = {"/api/endpoints": {"endpoints": endpoints}, "/api/strategy": {"strategy": "n-to-one"}}
    admin, view = Admin("http://127.0.0.1:1"), TopView()
    monkeypatch.setattr(admin, "get", answers.__getitem__)
    view.look(admin, 0.0)
    console = Console(width=columns, force_terminal=False)
    with console.capture() as captured:
        console.print(view.render(columns, height=24))
    rows = [line for line in captured.get().splitlines() if ":" in line]
    assert [row.split()[0] for row in rows[: len(addresses)]] == addresses
    assert all("slow-start" in row for row in rows[: len(addresses)])


def test_top_on_a_terminal_goes_on_until_ctrl_c(running: Running) -> None:
    ours, theirs = pty.openpty()
    port = running.admin.rsplit(":", 1)[1]
    environ = CLEAN | {"LB_ADMIN_PORT": port, "TERM": "xterm", "COLUMNS": "200", "LINES": "30"}
    top = subprocess.Popen([*RUN, "top", "--interval", "0.1"], env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while shown.count(running.backend.encode()) < 3:
            shown += os.read(ours, 65536)
        top.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal is gone once nobody holds its other end
            while rest := os.read(ours, 65536):
                shown += rest
        assert top.wait(20) == 0
    finally:
        top.kill()
        os.close(ours)
    assert b"Traceback" not in shown


def test_the_rate_and_the_share_come_from_what_was_answered_between_two_looks(running: Running) -> None:
    admin, view = Admin(running.admin), TopView()
    view.look(admin, 100.0)
    before = admin.get("/api/endpoints")["endpoints"][0]["answered"].get("2xx", 0)
    for _ in range(20):
        assert running.get("/") == 200
    deadline = time.monotonic() + 10  # the client may see an answer's last byte before it is counted
    while admin.get("/api/endpoints")["endpoints"][0]["answered"] != {"2xx": before + 20}:
        assert time.monotonic() < deadline
    view.look(admin, 102.0)
    assert view.rates["default", running.backend] == 10.0


def test_explain_tells_who_asked_what_who_won_and_why_the_other_was_out(
    running: Running, command: Callable[..., Said]
) -> None:
    deadline = time.monotonic() + 10
    while "/some/path" not in (done := command("explain", "--admin", running.admin)).stdout:
        assert time.monotonic() < deadline, done
        # A decision that follows another within 10 ms is not recorded.
        assert running.get("/some/path?secret=1") == 200
    assert f"127.0.0.1 GET /some/path → {running.backend}  round-robin: " in done.stdout
    [other] = {line.strip() for line in done.stdout.splitlines() if line.strip().startswith(running.dead)}
    assert "health checks fail" in other
    assert "secret" not in done.stdout


def test_explain_follows_until_ctrl_c(running: Running) -> None:
    asked = [*RUN, "explain", "--follow", "--admin", running.admin]
    with subprocess.Popen(asked, env=CLEAN | {"COLUMNS": "200"}, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline()  # it has begun
        assert running.get("/while/followed") == 200
        assert any("/while/followed" in line for line in following.stdout)
        following.send_signal(signal.SIGINT)
        following.stdout.read()
        assert following.wait(20) == 0


def test_where_no_balancer_is_top_and_explain_say_so(command: Callable[..., Said]) -> None:
    for asked in ("top", "explain"):
        done = command(asked, LB_ADMIN_PORT=str(free_port()))
        assert done.returncode == 1
        assert done.stderr.startswith("no balancer's admin port at http://127.0.0.1:")
        assert "Traceback" not in done.stderr


def test_what_is_no_url_is_refused(command: Callable[..., Said]) -> None:
    assert "http://" in command("top", "--admin", "file:///etc/passwd").stderr


def test_the_admin_port_of_a_wildcard_address_is_reached_by_loopback() -> None:
    assert admin_url({"LB_ADMIN_HOST": "0.0.0.0", "LB_ADMIN_PORT": "9"}) == "http://127.0.0.1:9"
    assert admin_url({"LB_ADMIN_HOST": "::"}) == "http://[::1]:8081"
    assert admin_url({"LB_PORT": "not our matter"}) == "http://127.0.0.1:8081"


def test_a_path_that_a_client_made_does_not_command_the_terminal() -> None:
    decision = {
        "at": 0.0,
        "client": "::1",
        "method": "GET",
        "path": "/\x1b[2J[bold]x",
        "chosen": None,
        "strategy": "round-robin",
        "by": "",
        "candidates": [],
        "others": {},
    }
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        console.print(decision_text(decision))
    assert "/\\x1b[2J[bold]x → no endpoint" in captured.get()
    assert printable("a\nb") == "a\\nb"


def test_an_answer_that_is_not_the_apis_is_told(running: Running) -> None:
    with pytest.raises(Unreachable, match="404"):
        Admin(running.admin).get("/api/nothing")
    with pytest.raises(Unreachable):
        Admin(running.admin).get("/metrics")
