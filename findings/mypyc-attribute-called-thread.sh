#!/usr/bin/env bash
# mypy 2.4.1 (PyPI), mypyc: a class with an attribute called `_thread` cannot be compiled. Attributes become members of a
# C struct by their name with an underscore before it, so `_thread` becomes `__thread`, which is a keyword of GCC and
# Clang. The compiler stops at a syntax error in a generated header; mypyc itself says nothing. Any other name will do.
#
# It takes a plain class that keeps a thread under the name that threading's own documentation would suggest.
#
# Seen with Python 3.11 and GCC 12 on 2026-11-30:
#   _writer: compiled
#   _thread: expected identifier before '__thread'
# Found when a class that had run interpreted for months was added to those that are compiled.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mypy==2.4.1 setuptools==80.9.0
cd "$folder"

# compiled NAME: what becomes of a class that keeps its thread as NAME.
compiled() {
    mkdir "$1"
    cat >"$1/kept.py" <<PYTHON
import threading


class Kept:
    def __init__(self) -> None:
        self.$1 = threading.Thread(target=print)
PYTHON
    if (cd "$1" && ../venv/bin/mypyc kept.py) >"$1/log" 2>&1; then
        echo "$1: compiled"
    else
        echo "$1: $(grep --only-matching --max-count 1 "expected identifier.* before .__thread." "$1/log" | sed "s/[‘’]/'/g; s/ or '(' / /")"
    fi
}

seen=$(compiled _writer; compiled _thread)
echo "$seen"
[[ $seen == "_writer: compiled
_thread: expected identifier before '__thread'" ]] || { echo "the behaviour has changed" >&2; exit 1; }
echo "as described"
