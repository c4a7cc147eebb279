"""A real Milvus 2.3.5 server of the package `milvus`, in a virtual environment of its own: it needs another setuptools
than everything else, and the client stays the one that mmsearch uses.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import venv
from pathlib import Path

PACKAGES = ["milvus==2.3.5", "setuptools<81"]
_STARTS = 5
"""Milvus 2.3.5 now and then panics on a loaded machine while it starts; the package then waits minutes for it."""
_READY_S = 90.0
_START = """
import os, sys, threading, time
from milvus import MilvusServer
server = MilvusServer()
server.set_base_dir(sys.argv[1])
server.listen_port = int(sys.argv[2])
def end_with_it():
    while True:
        process = getattr(server, "server_proc", None)
        if process is not None and process.poll() is not None:
            os._exit(3)
        time.sleep(0.2)
threading.Thread(target=end_with_it, daemon=True).start()
server.start()
print(server.server_proc.pid, flush=True)
sys.stdin.read()
server.stop()
"""


class NoServerError(Exception):
    """The package cannot be had."""


def python_with_milvus() -> Path:
    """The interpreter of the environment, made at first need.

    Raises:
        NoServerError: with the reason.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mmsearch-tests" / "milvus-2.3.5"
    python = cache / "bin" / "python"
    if (cache / "whole").exists():
        return python
    try:
        venv.create(cache, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", b"") or b"").decode().strip().splitlines()
        raise NoServerError(f"the package milvus cannot be installed: {said[-1] if said else error}") from error
    (cache / "whole").touch()
    return python


class MilvusServer:
    """A server on a free port, with its data in ``folder``."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder, self.port = folder, port or free_port()
        self._process: subprocess.Popen[str] | None = None
        self.pid = 0

    @property
    def address(self) -> str:
        return f"milvus://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers.

        Raises:
            NoServerError: the package cannot be had.
        """
        python = python_with_milvus()
        for _ in range(_STARTS):
            if self._started(python):
                return
        raise RuntimeError(f"the Milvus server did not start {_STARTS} times")

    def _started(self, python: Path) -> bool:
        self._process = subprocess.Popen(
            [str(python), "-c", _START, str(self.folder), str(self.port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            self.pid = 0
            self.stop()
            return False
        self.pid = int(line)
        return self._answers()

    def _answers(self) -> bool:
        """Waits for it: of a folder in which one has run before, the package reads in the old log that it is ready."""
        from mmsearch.core.errors import StoreUnreachable
        from mmsearch.store.milvus.address import parse
        from mmsearch.store.milvus.server import Server

        until = time.monotonic() + _READY_S
        while time.monotonic() < until and self._process is not None and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                server = Server(parse(f"{self.address}/any"))
                try:
                    server.has("any")
                    return True
                finally:
                    server.close()
            except (OSError, StoreUnreachable):
                time.sleep(0.3)
        self.stop()
        return False

    def kill(self) -> None:
        """Ends it at once, as ``kill -9`` does."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """Ends it."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        if self.pid:
            _gone(self.pid)


def _gone(pid: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
