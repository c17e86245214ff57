#!/usr/bin/env bash
# mypy 2.4.1 (PyPI), mypyc: in compiled code, the bound of a slice is evaluated twice where the sliced value is of a type
# for which mypyc has no slicing of its own (memoryview and bytearray here; not str, bytes or list). So a call in the
# bound happens twice: `view = view[os.write(fd, view) :]`, a common way to write all of a buffer, writes it all twice,
# and loses nothing that a test of the result's length would see.
#
# Seen with Python 3.11 on 2026-11-30 (calls of a function in the bound of one slice):
#   list: 1, bytes: 1, bytearray: 2, memoryview: 2
# Found when a log's lines stood there twice after its writer had been compiled.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mypy==2.4.1 setuptools==80.9.0
cd "$folder"
cat >sliced.py <<'PYTHON'
calls: list[int] = []


def bound() -> int:
    calls.append(1)
    return 1


def of_list(value: list[int]) -> int:
    calls.clear()
    value[bound() :]
    return len(calls)


def of_bytes(value: bytes) -> int:
    calls.clear()
    value[bound() :]
    return len(calls)


def of_bytearray(value: bytearray) -> int:
    calls.clear()
    value[bound() :]
    return len(calls)


def of_memoryview(value: memoryview) -> int:
    calls.clear()
    value[bound() :]
    return len(calls)
PYTHON
venv/bin/mypyc sliced.py >log 2>&1 || { tail log; exit 1; }
seen=$(venv/bin/python - <<'PYTHON'
import sliced

assert sliced.__file__.endswith(".so")
print(
    f"list: {sliced.of_list([1, 2])}, bytes: {sliced.of_bytes(b'ab')}, bytearray: {sliced.of_bytearray(bytearray(b'ab'))}, "
    f"memoryview: {sliced.of_memoryview(memoryview(b'ab'))}"
)
PYTHON
)
echo "$seen"
[[ $seen == "list: 1, bytes: 1, bytearray: 2, memoryview: 2" ]] || { echo "the behaviour has changed" >&2; exit 1; }
echo "as described"
