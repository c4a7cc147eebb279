"""The page of an index, served as `mmsearch serve` does, by a thread of the test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mmsearch.api import Index


@contextmanager
def served_page(index: Index, *, allow_changes: bool = False) -> Iterator[str]:
    """The address of the page with its token, as long as the block lasts."""
    import uvicorn

    from mmsearch.server.app import create_app

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = create_app(index, "secret", allow_changes=allow_changes)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/?token=secret"
        finally:
            server.should_exit = True
            thread.join()
