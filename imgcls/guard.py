"""Guard: who may pass, decided before a request's body is read; and headers that every answer has.

An ASGI layer around all routes, BentoML's own included. What it does not know needs the role
`manage`, so that nothing new is open by accident.
"""

import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Container
from typing import Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from starlette.responses import Response

from imgcls.auth import Role, Tokens, given_tokens
from imgcls.errors import CrossSite, Forbidden, Unauthorized
from imgcls.http import error_response, roles

logger = logging.getLogger("imgcls.service")

BESIDE: dict[str, Role | None] = {
    # Probes carry no token.
    "/livez": None,
    "/readyz": None,
    "/healthz": None,
    # A browser sends no token for a page; these describe the program and nothing that it holds.
    "/": None,
    "/docs.json": None,
    "/schema.json": None,
    # What it counts is nobody else's business, and Prometheus can send a token.
    "/metrics": "predict",
}
"""BentoML's own routes; None is open to all."""
_PAGE_FILES = "/static_content/"
"""What the page at `/` is made of."""

_HEADERS = [(b"x-content-type-options", b"nosniff")]
_PAGE_HEADERS = [
    *_HEADERS,
    # The page's own files and nothing else: BentoML's page would load a tracker.
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
]


def needed_roles(service: Any) -> dict[str, Role | None]:
    """The role that each route of a service of `endpoint`s needs; None is open to all.

    What is not named needs `manage`.
    """
    return {**BESIDE, **roles(service)}


class Guard:
    """Refuses with 401 or 403; without `tokens`, only what pages of other sites send.

    A page of any site can make a visitor's browser post to a service on that visitor's own
    machine. Such a request carries no token but says `Sec-Fetch-Site: cross-site`.
    """

    def __init__(self, app: Any, service: Any, tokens: Tokens | None) -> None:
        self.app = app
        self._tokens = tokens
        self._needed = needed_roles(service)
        self._cors: bool = BentoMLContainer.http.cors.enabled.get()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            if self._tokens is None and bentoml.server_context.worker_index in (None, 1):
                _warn_of_public_addresses()
            _count_only(self._needed, scope["app"].middleware_stack)
            await self.app(scope, receive, send)
            return
        headers = _PAGE_HEADERS if scope["path"] == "/" else _HEADERS

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Any) -> Response | None:
        if self._tokens is None:
            return None if self._cors else _cross_site_refusal(scope)
        if self._cors and scope.get("method") == "OPTIONS":
            return None  # a browser asks without a token whether it may send one
        path = scope["path"]
        needed = self._needed.get(path, "manage")
        if needed is None or path.startswith(_PAGE_FILES):
            return None
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        if not sent:
            return _unauthorized("This service needs a token", "Bearer")
        scheme, _, token = sent[0].partition(b" ")
        role = self._tokens.role_of(token.strip())
        if role is None or len(sent) > 1 or scheme.lower() != b"bearer":
            return _unauthorized("This token is not known", 'Bearer error="invalid_token"')
        if role in ("manage", needed):
            return None
        response = error_response(
            Forbidden(f"{path[:80]} needs a token with the role {needed}; this one has {role}.")
        )
        response.headers["WWW-Authenticate"] = (
            f'Bearer error="insufficient_scope", scope="{needed}"'
        )
        return response


class OnlyPaths:
    """An ASGI layer that other paths than the given ones pass by."""

    def __init__(self, layer: Any, paths: Container[str]) -> None:
        self.app = layer
        self._paths = paths

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        known = scope["type"] == "lifespan" or scope["path"] in self._paths
        answer: Awaitable[None] = (self.app if known else self.app.app)(scope, receive, send)
        return answer


def _count_only(paths: Container[str], layer: Any) -> None:
    """Let BentoML's metrics count these paths alone, in a stack of ASGI layers.

    It keeps series for each path that was ever asked for, and anybody can make paths up.
    """
    # Loaded by now; BentoML's supervisor does without.
    from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware

    while hasattr(layer, "app"):
        if isinstance(layer.app, RunnerTrafficMetricsMiddleware):
            layer.app = OnlyPaths(layer.app, paths)
            return
        layer = layer.app


def guard(service: Any) -> Any:
    """Class decorator for a BentoML service of `endpoint`s: let the settings' tokens decide.

    Raises `ImgclsError` for tokens that cannot be used, before anything is served.
    """
    given = given_tokens()
    service.add_asgi_middleware(Guard, service=service, tokens=Tokens(given) if given else None)
    return service


def _unauthorized(what: str, challenge: str) -> Response:
    response = error_response(Unauthorized(f"{what}: send `Authorization: Bearer TOKEN`."))
    response.headers["WWW-Authenticate"] = challenge
    return response


def _cross_site_refusal(scope: Any) -> Response | None:
    if (b"sec-fetch-site", b"cross-site") not in scope["headers"]:
        return None
    if scope.get("method") in ("GET", "HEAD"):
        return None
    return error_response(
        CrossSite(
            "A page of another site sent this. Set tokens and let the page send one, or call from "
            "a page of this service."
        )
    )


def _warn_of_public_addresses() -> None:
    public = [
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for host, port in _listening()
        if not ipaddress.ip_address(host).is_loopback
    ]
    if public:
        logger.warning(
            "Anybody who reaches %s may train, replace and remove models: there are no tokens. Set "
            "IMGCLS_TOKENS or IMGCLS_TOKENS_FILE, or serve on 127.0.0.1; see SECURITY.md.",
            " and ".join(public),
        )


def _listening() -> list[tuple[str, int]]:
    """Host and port of every socket on which this process takes connections.

    A worker is handed its socket by number, and nothing else tells it the address.
    """
    found = []
    for number in map(int, os.listdir("/dev/fd")):
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as sock:
                inet = sock.family in (socket.AF_INET, socket.AF_INET6)
                if inet and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.append(sock.getsockname()[:2])
        except OSError:  # closed since, such as the listing's own
            continue
    return found
