"""Listens on this machine until it is stopped."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from mmsearch.core.errors import UsageError
from mmsearch.server import EXTRA, has_server

if TYPE_CHECKING:
    from mmsearch.api import Index

HOST = "127.0.0.1"


def serve(index: Index, port: int, token: str | None, started: Callable[[str], None]) -> None:
    """Answers browsers and programs of this machine about an open index, until Ctrl-C.

    ``port`` 0: any that is free. ``token``: what requests must bear; by default a new one. ``started`` is told the
    address with the token, once it can be opened.

    Raises:
        UsageError: the extra is not installed, or the port is taken.
    """
    if not has_server():
        raise UsageError(f"serving needs an extra that is not installed: {EXTRA}")
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
            uvicorn.Config(create_app(index, secret), log_level="warning", access_log=False, lifespan="off")
        )
        started(f"http://{HOST}:{listener.getsockname()[1]}/?token={secret}")
        with suppress(KeyboardInterrupt):  # that is how it is ended
            server.run(sockets=[listener])
