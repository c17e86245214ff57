"""A short run of the fuzzer on every build, from the corpus of hostile messages; FUZZ_SECONDS makes it longer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.balancer.proxy.wire.corpus import all_cases

SECONDS = int(os.environ.get("FUZZ_SECONDS", "15"))
TARGET = Path(__file__).parent / "fuzz_framing.py"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python or processor"
)


def seeds(folder: Path) -> None:
    """Each case of the corpus as a first input: the byte that chooses the parser, a cut, the message."""
    folder.mkdir()
    for kind, cases in ((b"\0", all_cases("requests")), (b"\1", all_cases("responses"))):
        for number, case in enumerate(cases):
            if len(case.sent) < 4096:
                (folder / f"{kind[0]}-{number}").write_bytes(kind + b"\0" + case.sent)
                body = case.sent.partition(b"\r\n\r\n")[2]
                if body:
                    (folder / f"2-{kind[0]}-{number}").write_bytes(b"\2\3" + body)


@pytest.mark.timeout(SECONDS + 120)
def test_no_input_breaks_a_parser(tmp_path: Path) -> None:
    seeds(tmp_path / "seeds")
    (tmp_path / "found").mkdir()
    command = [sys.executable, str(TARGET), str(tmp_path / "found"), str(tmp_path / "seeds")]
    command += [f"-max_total_time={SECONDS}", "-max_len=4096", "-timeout=5", f"-artifact_prefix={tmp_path}/"]
    # The peak that libFuzzer watches is inherited from whoever started it: only single allocations can be judged.
    command += ["-rss_limit_mb=0", "-malloc_limit_mb=512"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 100, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "Done" in done.stderr, done.stderr[-2000:]
