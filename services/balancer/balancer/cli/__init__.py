"""The command line: run the balancer, check its settings, or look at one that runs.

Each command imports what it needs when it runs, so that `--help`, `--version` and a wrong setting answer at once.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from balancer.settings import Settings

ENV_FILE = Path(".env")

WRONG_SETTINGS = 2
"""Exit status when a setting is wrong: nothing was started."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell has it."""

USAGE = "python -m balancer [--check | --version | --help | top | explain | lab | ingress-check]"

ABOUT = """\
lb balances HTTP requests or TCP connections over endpoints that it discovers, by a strategy
that LB_STRATEGY names, and explains every choice. All settings are environment variables.

  python -m balancer            run until SIGTERM or Ctrl-C
  python -m balancer --check    validate the settings and the files they name, and exit
  python -m balancer top        show a running balancer's endpoints, live
  python -m balancer explain    show why its latest requests went where they went
  python -m balancer lab        find the best strategy, by simulation or from access logs
  python -m balancer ingress-check FILE…
                                say what Ingresses written for ingress-nginx would do here
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; returns the exit status: 0, 1 for a failure, 2 for wrong settings or usage."""
    given = sys.argv[1:] if arguments is None else arguments
    parsed = _parser(lab=given[:1] == ["lab"]).parse_args(given)
    if parsed.help:
        return _help()
    if parsed.version:
        from balancer import __version__

        return _print(f"lb {__version__}")
    if parsed.command in ("top", "explain"):
        from balancer.cli import terminal

        return terminal.main(parsed)
    if parsed.command == "lab":
        from balancer.cli import lab

        return _until_interrupted(lab.main, parsed)
    if parsed.command == "ingress-check":
        from balancer.cli import ingress_check

        return ingress_check.main(parsed)
    return _check() if parsed.check else _run()


def _until_interrupted(run: Callable[[argparse.Namespace], int], parsed: argparse.Namespace) -> int:
    """Run a command that prints, until it is done, Ctrl-C, or nobody reads on (as behind `| head`)."""
    try:
        status = run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # What is left is flushed there at exit.
        return 0
    return status


def _parser(lab: bool = False) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m balancer", usage=USAGE, add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true", help="say what there is, with every setting")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--check", action="store_true", help="validate the settings and exit")
    commands = parser.add_subparsers(dest="command")
    top = commands.add_parser("top", prog="python -m balancer top", help="the endpoints, live")
    top.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between two looks (1)")
    top.add_argument("--once", action="store_true", help="print them once and exit")
    explain = commands.add_parser("explain", prog="python -m balancer explain", help="the latest decisions")
    explain.add_argument("-n", "--number", type=int, default=5, metavar="N", help="how many, at most 1000 (5)")
    explain.add_argument("-f", "--follow", action="store_true", help="go on with new ones until Ctrl-C")
    for command in (top, explain):
        command.add_argument("--admin", metavar="URL", help="the admin port (http://LB_ADMIN_HOST:LB_ADMIN_PORT)")
        command.add_argument(
            "--cacert", metavar="FILE", help="whom to trust there by https (LB_ADMIN_TLS_CERT, or the system's)"
        )
    moving = commands.add_parser(
        "ingress-check", prog="python -m balancer ingress-check", help="what Ingresses would do"
    )
    moving.add_argument("files", nargs="+", metavar="FILE", help="YAML with Ingresses; - for the standard input")
    experiments = commands.add_parser("lab", prog="python -m balancer lab", help="which strategy would do best")
    if lab:
        from balancer.cli.lab_flags import add_arguments

        add_arguments(experiments)
    return parser


def _print(text: str, to: TextIO | None = None) -> int:
    (to or sys.stdout).write(text + "\n")
    return 0


def _help() -> int:
    from balancer.settings import table
    from balancer.settings.table import as_text

    width = min(110, shutil.get_terminal_size((100, 24)).columns)
    introduction = "\n\nSettings, with their defaults. A file .env in the working directory may hold them too.\n\n"
    return _print(f"{ABOUT}\nusage: {USAGE}{introduction}{as_text(table(), width)}")


def _settings() -> Settings | None:
    """The settings, or None after printing what is wrong with them."""
    from balancer.settings import SettingsError, load

    try:
        return load(os.environ, ENV_FILE)
    except SettingsError as error:
        _tell(error.faults)
        return None


def _tell(faults: Sequence[str]) -> None:
    from balancer.log.chart_values import beside

    for fault in faults:
        _print(beside(fault), sys.stderr)
    _print(f"{len(faults)} wrong: nothing was started. `python -m balancer --help` lists every setting.", sys.stderr)


def _check() -> int:
    from balancer.cli.check import faults_of

    settings = _settings()
    if settings is None or _wrong(faults_of(settings)):
        return WRONG_SETTINGS
    return _print("The settings are valid.")


def _wrong(faults: Sequence[str]) -> bool:
    if faults:
        _tell(faults)
    return bool(faults)


def _run() -> int:
    # Imports make no garbage: the collector would take a tenth of the start. app.py switches it on again.
    gc.disable()
    from balancer.cli.check import faults_at_start

    settings = _settings()
    if settings is None or _wrong(faults_at_start(settings)):
        return WRONG_SETTINGS
    from balancer import log
    from balancer.settings import service_links

    messages = log.configure(settings.log_level, settings.log_format)
    links = service_links(os.environ)
    if links:
        import structlog

        structlog.get_logger().warning(
            "service links ignored",
            variables=links,
            remedy="Kubernetes sets these for a Service whose name begins with lb: set enableServiceLinks: false",
        )
    from balancer.app import main as run

    return run(settings, messages)
