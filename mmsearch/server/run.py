"""Listens until it is stopped, on this machine alone unless an address of its network is named."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mmsearch.core.errors import UsageError
from mmsearch.core.extras import install_hint
from mmsearch.server import has_server
from mmsearch.server.warming import lists_ready

if TYPE_CHECKING:
    from mmsearch.api import Index

HOST, PORT, MORE_PORTS = "127.0.0.1", 8642, 20
"""Where it listens unless something else is said: at the first of so many ports that is free."""
CONNECTIONS = 200
"""Open at once; a browser takes six. Others are told to come later."""
REQUEST_S, GRACE_S = 15, 3
"""Seconds that the head of a request may take to arrive, and that answers under way may take after Ctrl-C."""


def serve(
    index: Index, port: int | None, token: str | None, started: Callable[[str], None], *, host: str = HOST,
    allow_changes: bool = False, cors_origins: Sequence[str] = (),
) -> None:  # fmt: skip
    """Answers browsers and programs about an open index, until Ctrl-C.

    ``port`` 0: any that is free; ``None``: `PORT`, or the next one that is free. ``token``: what requests must bear; by
    default a new one. ``started`` is told the address with the token, once it can be opened. ``host``: an address of
    this machine on which it listens; others than loopback let in whoever is in that network and knows the token.
    ``allow_changes`` and ``cors_origins`` as for `mmsearch.server.app.create_app`.

    Raises:
        UsageError: the extra is not installed, or the address or port cannot be used.
    """
    check_server()
    import uvicorn

    from mmsearch.server.access import LOOPBACK
    from mmsearch.server.app import create_app

    secret = token or secrets.token_urlsafe(24)
    for origin in cors_origins:
        if not re.fullmatch(r"https?://[^/\s]+", origin):
            raise UsageError(f"{origin!r} is no origin: write it as https://photos.example, without a path")
    with _listening(host, port) as listener:
        hosts = LOOPBACK if is_loopback(host) else None
        app = create_app(index, secret, hosts=hosts, allow_changes=allow_changes, cors_origins=cors_origins)
        index.encoder(texts_only=True)  # the first question should not wait for it
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                lifespan="off",
                http=impatient_protocol(),
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        started(f"http://{_shown(host)}:{listener.getsockname()[1]}/?token={secret}")
        with lists_ready(index.browse), suppress(KeyboardInterrupt):  # that is how it is ended
            server.run(sockets=[listener])


def check_server() -> None:
    """Raises a UsageError that says what to install where the extra is missing."""
    if not has_server():
        raise UsageError(f"serving needs an extra that is not installed: {install_hint('serve')}")


def _listening(host: str, port: int | None) -> socket.socket:
    wanted = range(PORT, PORT + MORE_PORTS) if port is None else (port,)
    for one in wanted:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, one))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(
                    f"{host} is no address of this machine: give one of its own, such as {lan_address() or HOST}, "
                    "or 0.0.0.0 for all"
                ) from error
            if error.errno != errno.EADDRINUSE or one == wanted[-1]:
                reason = error.strerror
                break
    shown = f"port {one}" if port is not None else f"no port from {wanted[0]} to {wanted[-1]}"
    raise UsageError(f"{shown} cannot be used ({reason}): name another one with --port")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def lan_address() -> str | None:
    """The address of this machine in its network; ``None`` where it is in none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of a block for documentation (RFC 5737): only the route is looked up
            address = str(probe.getsockname()[0])
        except OSError:
            return None
    return None if address.startswith(("0.", "127.")) else address


def _shown(host: str) -> str:
    """What others write for it."""
    if host in ("0.0.0.0", "::"):
        return lan_address() or socket.gethostname()
    return f"[{host}]" if ":" in host else host


def qr_code(address: str) -> str:
    """A QR code in lines for a terminal, dark modules as spaces, with the quiet zone that a camera needs."""
    import segno

    rows = [bytes(row) for row in segno.make(address, error="l", micro=False).matrix_iter(border=2)]
    rows += [bytes(len(rows[0]))] * (len(rows) % 2)
    blocks = {(0, 0): "\u2588", (0, 1): "\u2580", (1, 0): "\u2584", (1, 1): " "}
    return "\n".join(
        "".join(blocks[pair] for pair in zip(*rows[top : top + 2], strict=True)) for top in range(0, len(rows), 2)
    )


def impatient_protocol() -> type[Any]:
    """Uvicorn's protocol on h11, which waits for ever for the rest of a request: this one closes the connection."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:  # the head of a request is not complete
                self._wait()
            elif self.waiting is not None:
                self.waiting.cancel()
                self.waiting = None

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.waiting is not None:
                self.waiting.cancel()

        def _wait(self) -> None:
            if self.waiting is None:
                self.waiting = self.loop.call_later(REQUEST_S, self._give_up)

        def _give_up(self) -> None:
            self.waiting = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return Impatient
