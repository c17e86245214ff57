"""`python -m pi`: serve, or `--help`, or `--check` the settings."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from importlib.metadata import version


def main() -> int:
    """Run the command line. The exit status is 0 after an orderly end, 1 when it can't serve, 2 for wrong settings."""
    # From the first moment a signal ends it quietly. As the first process of a container it would ignore SIGTERM else.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    from pi import settings  # late, as is the server below: --help and --check need not load that

    arguments = _parser(settings.table()).parse_args()
    if arguments.settings_table:
        print(settings.table(markdown=True))  # noqa: T201
        return 0
    try:
        chosen, warnings = settings.load()
    except settings.SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    _log_to_stderr()
    for warning in warnings:
        logging.getLogger("pi.settings").warning("%s", warning)
    if arguments.check:
        print("the settings are valid")  # noqa: T201
        return 0
    from pi import server

    return server.run(chosen)


def _parser(table: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pi",
        description="Serve the digits of Pi: GET /N answers the first N decimals.",
        epilog=f"settings, from the environment:\n\n{table}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="check the settings and exit: 0 if they are valid, else 2")
    parser.add_argument("--settings-table", action="store_true", help="print the settings as Markdown and exit")
    parser.add_argument("--version", action="version", version=version("lb-pi"))
    return parser


def _log_to_stderr() -> None:
    """One line for each transition: time in UTC, level, what happened."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )


if __name__ == "__main__":
    sys.exit(main())
