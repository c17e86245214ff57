"""Both services as they would run in a pod of one or two address families: `pod.py FAMILY…`, in a network of its own.

    unshare --net python pod.py ipv6

The network is a namespace with a device of its own, as a pod's is. Prints as JSON what each address of it answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ADDRESSES = {"ipv4": "10.9.8.7", "ipv6": "fd00:9::7"}
BALANCER = {"LB_HOST": "::", "LB_ADMIN_HOST": "::", "LB_TRUSTED_PROXIES": "none", "LB_LOG_FORMAT": "json"}
PI = {"PI_HOST": "::", "PI_WORKERS": "1", "PI_NAME": "pi"}
LIMIT = 60.0
"""Seconds until both must answer."""


def connect(families: list[str]) -> None:
    """Give the namespace a device with an address of each family."""
    if "ipv6" not in families:
        for device in ("all", "default", "lo"):
            Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
    for command in ("link set lo up", "link add eth0 type veth peer name node", "link set node up", "link set eth0 up"):
        subprocess.run(["ip", *command.split()], check=True)
    for family in families:
        length = ["32"] if family == "ipv4" else ["128", "nodad"]
        address = f"{ADDRESSES[family]}/{length[0]}"
        subprocess.run(["ip", "address", "add", address, "dev", "eth0", *length[1:]], check=True)


def ask(url: str) -> str:
    """The answer's body, or what went wrong, once there is an answer or the time is over."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() > end:
                return repr(error)
            time.sleep(0.1)


def main(families: list[str]) -> None:
    connect(families)
    urls = [f"[{ADDRESSES[each]}]" if each == "ipv6" else ADDRESSES[each] for each in families]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LB_", "PI_"))}
    environment |= BALANCER | PI | {"LB_BACKENDS": f"{urls[0]}:8000"}
    started = [subprocess.Popen([sys.executable, "-m", name], env=environment) for name in ("pi", "balancer")]
    try:
        told = {
            family: {
                "pi": ask(f"http://{host}:8000/10"),
                "ready": ask(f"http://{host}:8081/readyz"),
                "balanced": ask(f"http://{host}:8080/10"),
            }
            for family, host in zip(families, urls, strict=True)
        }
    finally:
        for process in started:
            process.kill()
            process.wait()
    sys.stderr.flush()
    print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
