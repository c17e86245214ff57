"""Who may do what at the admin port.

Reading is free to anyone who reaches the port (LB_ADMIN_HOST is 127.0.0.1 unless set otherwise). Changing needs the
bearer token. A browser is a way past both: a page of another site can send requests here from the operator's own
machine. So nothing is answered to another site's page (no CORS header is ever sent, `Sec-Fetch-Site` and `Origin` are
checked), and nothing to a page whose own name was pointed at this address (DNS rebinding): a public DNS name in `Host`
is refused. Names that public DNS cannot give are let through: addresses, `localhost`, and a cluster's own.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import structlog
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

UNGUARDED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that programs read, under any host name; they say nothing of any client."""
LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".svc", ".svc.cluster.local", ".cluster.local")

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every response. No `Access-Control-…` header is among them, which is the point."""

log = structlog.get_logger(__name__)


class Refusal(Exception):
    """A request that is refused: its status, and a sentence that says what to do instead."""

    def __init__(self, status: int, error: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = headers or {}

    def response(self) -> web.Response:
        """What the client gets."""
        return web.json_response({"error": self.error}, status=self.status, headers=self.headers)


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other sites' pages, and turn errors into JSON."""
    try:
        if request.path not in UNGUARDED:
            refuse_foreign_host(request.headers.get("Host", ""))
            refuse_other_sites(request)
        return await handler(request)
    except Refusal as refusal:
        return refusal.response()
    except ConnectionResetError:
        return web.Response()  # The client left in mid-answer, which is its right: nobody reads this one.
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return Refusal(error.status, error.reason, headers).response()


async def protect(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the protective headers on a response that is about to be sent."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def refuse_foreign_host(host: str) -> None:
    """Raise Refusal for a `Host` that an attacker's DNS could point at this address."""
    name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    if "." not in name or name.endswith(LOCAL_SUFFIXES):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        error = (
            f"The admin port does not answer to the public name {name!r}, which protects it from DNS rebinding. "
            "Use an address, localhost (kubectl port-forward) or a cluster name; a proxy in front must set Host so."
        )
        raise Refusal(421, error) from None


def refuse_other_sites(request: web.Request) -> None:
    """Raise Refusal for what a page of another site sent. Programs send neither header and pass."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    navigates = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    if site not in ("same-origin", "none") and not navigates:
        raise Refusal(403, "Pages of other sites may not use the admin port.")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower():
        raise Refusal(403, "Pages of other sites may not use the admin port.")


class Auth:
    """Knows the admin token, and asks for it before anything is changed."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None

    def require(self, request: web.Request) -> None:
        """Raise Refusal unless the request carries the token, compared in constant time."""
        if self._token is None:
            raise self._refused(
                request, Refusal(403, "No token is set, so nothing can be changed: set LB_ADMIN_TOKEN.")
            )
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token)
        if scheme.lower() != "bearer" or not right:
            error = (
                "The admin token is needed: send `Authorization: Bearer TOKEN`." if not given else "Wrong admin token."
            )
            raise self._refused(request, Refusal(401, error, {"WWW-Authenticate": 'Bearer realm="lb admin"'}))

    @staticmethod
    def _refused(request: web.Request, refusal: Refusal) -> Refusal:
        log.warning("change refused", what=f"{request.method} {request.path}", why=refusal.error, **who(request))
        return refusal


def who(request: web.Request) -> dict[str, str]:
    """Who asks, for the audit log: it distinguishes holders of the token by address and user agent."""
    return {"by": request.remote or "unknown", "agent": request.headers.get("User-Agent", "")[:100]}
