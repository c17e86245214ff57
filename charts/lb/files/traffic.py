"""Asks the balancer and checks the answer: `python traffic.py URL PATH [BODY]`, run by `helm test`.

Every request, each on a connection of its own, must be answered by an endpoint: with BODY where one is given, else with
anything but an error that the balancer itself made (it marks those with Proxy-Status). Where URL begins with tcp:, an
endpoint must keep each connection open, which is all that is known of a byte stream.
"""

import socket
import ssl
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

url, path = sys.argv[1:3]
body = sys.argv[3] if len(sys.argv) > 3 else None
# The certificate's name is the clients' business, not this Service's.
unverified = ssl._create_unverified_context()


def ask() -> str | None:
    """What is wrong with one answer; None when nothing is. Adds to `served` who answered."""
    request = urllib.request.Request(url + path, headers={"Accept": "text/plain"})
    try:
        with urllib.request.urlopen(request, timeout=10, context=unverified) as answer:
            text = answer.read().decode(errors="replace").strip()
            served.add(answer.headers.get("X-Served-By", "an endpoint"))
            return None if body in (None, text) else f"the body is {text[:100]!r}, not {body!r}"
    except urllib.error.HTTPError as error:
        made_here = error.headers.get("Proxy-Status")
        return f"{error.code} {made_here or ''} {error.read(300)!r}" if made_here or body else None
    except OSError as error:
        return str(error)


def connect() -> str | None:
    """The same for a byte stream."""
    try:
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10) as connection:
            served.add("an endpoint")
            connection.settimeout(1)
            return None if connection.recv(1) else "closed at once: no endpoint took the connection"
    except TimeoutError:
        return None
    except OSError as error:
        return str(error)


served = set()
attempt, attempts = (connect, 3) if url.startswith("tcp:") else (ask, 20)
wrong = [problem for problem in (attempt() for _ in range(attempts)) if problem]
for problem in wrong:
    print(f"{url}{path}: {problem}")
print(f"{attempts - len(wrong)} of {attempts} requests were served, by {', '.join(sorted(served)) or 'nobody'}")
sys.exit(1 if wrong else 0)
