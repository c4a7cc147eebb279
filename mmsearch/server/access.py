"""Who may ask: programs and browsers that know the token, of this machine unless others were let in.

Any page of the web can make a browser send requests to an address of this machine, and by renaming its own server to
that address (DNS rebinding) even read the answers. So a request needs the token, which such a page cannot know, and
has to name this machine as its host.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import socket
from collections.abc import Collection
from http.cookies import SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mmsearch.server.problems import problem
from mmsearch.sources import is_remote, located

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from mmsearch.store.base import Document

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
COOKIE = "mmsearch_token_{}"
"""With the port: a browser keeps cookies by host, so that servers side by side would take each other's."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


STALE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>mmsearch: a new address is needed</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
</head><body><main><h1>This page needs its new address</h1>
<p>mmsearch was started again, or never opened in this browser, so the token that let it in is missing or old.</p>
<p>Open the address that <code>mmsearch serve</code> printed in its terminal, the one with <code>?token=</code>;
on a phone, take a picture of the code there. To keep one address for good, start it with
<code>mmsearch serve --token SECRET</code>.</p></main></body></html>
"""


class Guard:
    """Lets requests through to ``app`` that bear ``token``: as ``Authorization: Bearer``, or in the cookie that the
    address with ``?token=`` leaves in a browser. All others get 401, and those for another host than one of ``hosts``
    403. ``hosts`` ``None``: any address in numbers, and the names of this machine. ``open_paths`` need no token. All
    answers bear `HEADERS`.
    """

    def __init__(
        self, app: ASGIApp, token: str, hosts: Collection[str] | None = LOOPBACK, open_paths: Collection[str] = ()
    ) -> None:
        self._app, self._token, self._hosts, self._open_paths = app, token, hosts, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not self._is_host(headers.get("host", "")):
            response: Response = problem(403, "this server does not answer to that host name")
        elif scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        elif given and self._is_right(given) and scope["path"] == "/":
            response = RedirectResponse("/", 303)
            response.set_cookie(_cookie(scope), given, httponly=True, samesite="strict")
        elif not self._is_right(_borne(headers, _cookie(scope))):
            response = _refusal(headers)
        else:
            await self._app(scope, receive, send)
            return
        await response(scope, receive, send)

    def _is_host(self, host: str) -> bool:
        name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) else host
        if self._hosts is not None:
            return name in self._hosts
        return name.lower() in own_names() or _is_address(name)

    def _is_right(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode())


def _refusal(headers: dict[str, str]) -> Response:
    """A page for browsers, a problem for programs."""
    if "text/html" in headers.get("accept", ""):
        return HTMLResponse(STALE, 401)
    answer = problem(401, "the address that `mmsearch serve` printed has the token for this")
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def own_names() -> frozenset[str]:
    """What this machine is called, in its own network too."""
    name = socket.gethostname().lower().removesuffix(".local")
    return frozenset((*LOOPBACK, name, f"{name}.local"))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    """Every answer bears `HEADERS`."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending


def _cookie(scope: Scope) -> str:
    server = scope.get("server")
    return COOKIE.format(server[1] if server else "")


def _borne(headers: dict[str, str], name: str) -> str:
    """The token of a request, empty where it has none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    cookie = SimpleCookie(headers.get("cookie", "")).get(name)
    return "" if cookie is None else cookie.value


def is_in_place(document: Document) -> bool:
    """Whether what lies at the place of an indexed file may be shown as that file.

    A file may have been edited since it was indexed. What is reached through a link, below the folder that is indexed,
    must still be what was indexed, by size and time: else whoever may write there could show any file of this machine
    through the server. Of a member of an archive, the archive counts.
    """
    path = located(document.path)
    if is_remote(path):
        return True  # there are no links
    inside = Path(document.name)
    is_below = not inside.is_absolute() and path.parts[-len(inside.parts) :] == inside.parts
    root = path.parents[len(inside.parts) - 1] if is_below else None
    if root is None:
        return not path.is_symlink()
    while not os.path.lexists(path) and path != root:  # a member of an archive
        path = path.parent
    try:
        found = path.stat()
        if path.resolve() == root.resolve() / path.relative_to(root):
            return True
    except FileNotFoundError:
        return True  # nothing is shown of it then
    except (OSError, RuntimeError):
        return False
    return (found.st_size, found.st_mtime_ns) == (document.size, document.mtime_ns)
