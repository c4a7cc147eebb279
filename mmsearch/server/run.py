"""Listens on this machine until it is stopped."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mmsearch.core.errors import UsageError
from mmsearch.core.extras import install_hint
from mmsearch.server import has_server

if TYPE_CHECKING:
    from mmsearch.api import Index

HOST = "127.0.0.1"
CONNECTIONS = 200
"""Open at once; a browser takes six. Others are told to come later."""
REQUEST_S, GRACE_S = 15, 3
"""Seconds that the head of a request may take to arrive, and that answers under way may take after Ctrl-C."""


def serve(index: Index, port: int, token: str | None, started: Callable[[str], None]) -> None:
    """Answers browsers and programs of this machine about an open index, until Ctrl-C.

    ``port`` 0: any that is free. ``token``: what requests must bear; by default a new one. ``started`` is told the
    address with the token, once it can be opened.

    Raises:
        UsageError: the extra is not installed, or the port is taken.
    """
    if not has_server():
        raise UsageError(f"serving needs an extra that is not installed: {install_hint('serve')}")
    import uvicorn

    from mmsearch.server.app import create_app

    secret = token or secrets.token_urlsafe(24)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UsageError(f"port {port} cannot be used ({error.strerror}): name another one with --port") from error
    with listener:
        index.encoder(texts_only=True)  # the first question should not wait for it
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(index, secret),
                log_level="warning",
                access_log=False,
                lifespan="off",
                http=impatient_protocol(),
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        started(f"http://{HOST}:{listener.getsockname()[1]}/?token={secret}")
        with suppress(KeyboardInterrupt):  # that is how it is ended
            server.run(sockets=[listener])


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
