"""Finds the archaic or vague words that CONTRIBUTING.md lists, with a plain one for each; `make check` runs it.

    .venv/bin/python tools/words.py [FILE …]

Without arguments it reads every file of the repository that is in SWEPT. A folder joins that list when it is clean.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PLAIN = {
    r"anew": "again",
    r"besides": "also, too, as well",
    r"hitherto|heretofore": "so far",
    r"oftener": "more often",
    r"oft": "often",
    r"save for": "except for",
    r"shall": "must, will",
    r"thence|thenceforth": "from there",
    r"thereof|therein|thereby|thereupon": "name the thing",
    r"(is|are|was|were|be|been) told": "name who says it: lb logs, the client sends",
    r"tells? of": "reports, says, shows",
    r"told of": "reported, known",
    r"upon": "on",
    r"whence": "from where",
    r"wherefore": "why",
    r"whoever": "anyone who, the client, the operator",
    r"whosoever|whomever": "anyone",
    r"in the midst of": "during",
    r"lest": "so that … not",
}
"""By pattern, what to write instead."""

STRICT = {
    r"told(?! ?[=.,:)\]}])": "say who says it, and how: logs, sends, reports, passes",
    r"tells?": "says, shows, reports, gives",
    r"whom": "name it: the client, the endpoint",
    r"came (of|to)": "the result of",
    r"judged?": "compare, decide, measure",
    r"anew": "again",
}
"""The same for folders that were swept a second time: SWEPT_TWICE."""

SWEPT = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "Makefile",
    "benchmarks",
    "charts",
    "docs",
    "services/balancer/balancer/admin",
    "services/balancer/balancer/balancing",
    "services/balancer/balancer/cli",
    "services/balancer/balancer/discovery",
    "services/balancer/balancer/lab",
    "services/balancer/balancer/log",
    "services/balancer/balancer/peers",
    "services/balancer/balancer/probes",
    "services/balancer/balancer/proxy",
    "services/balancer/balancer/routing",
    "services/balancer/balancer/settings",
    ":(glob)services/balancer/balancer/*.py",
    "services/balancer/Dockerfile",
    "services/pi",
    "tests/bench",
    "tests/browser",
    "tests/chart",
    "tests/integration",
    "tests/pi",
    "tests/soak",
    "tests/tools",
    "tools",
)

SWEPT_TWICE = (
    *(
        f"services/balancer/balancer/{folder}/"
        for folder in ("balancing", "discovery", "lab", "log", "peers", "probes", "proxy", "routing", "settings")
    ),
    "docs/",
    "charts/",
)


def _compiled(words: dict[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(rf"\b({pattern})\b", re.IGNORECASE), plain) for pattern, plain in words.items()]


_PLAIN = _compiled(PLAIN)
_STRICT = _compiled(PLAIN | STRICT)
_SKIPPED = {".lock", ".png", ".svg", ".json"}


def faults(text: str, strict: bool = False) -> Iterator[tuple[int, str, str]]:
    """Line number, word, and what to write instead, for each word of the list in `text`; `strict`: of both lists."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, plain in _STRICT if strict else _PLAIN:
            for found in pattern.finditer(line):
                yield number, found[0], plain


def files(arguments: list[str]) -> list[Path]:
    """The files to read."""
    done = subprocess.run(
        ["git", "ls-files", *(arguments or SWEPT)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in done.stdout.splitlines()]
    # The list itself, and the examples of what not to write.
    own = {ROOT / "tools/words.py", ROOT / "tests/tools/test_words.py", ROOT / "CONTRIBUTING.md"}
    return [path for path in paths if path.suffix not in _SKIPPED and path not in own and path.is_file()]


def main() -> int:
    """Print each fault as FILE:LINE; the exit status is 1 when there is one."""
    status = 0
    for path in files(sys.argv[1:]):
        name = path.relative_to(ROOT).as_posix()
        for number, word, plain in faults(path.read_text(encoding="utf-8"), name.startswith(SWEPT_TWICE)):
            print(f"{name}:{number}: “{word}”: write {plain}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
