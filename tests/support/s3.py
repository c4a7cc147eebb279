"""A real S3 server on this machine (moto's), in threads of this process, that can be told to fail now and then."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

THROTTLED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip


class S3Server:
    """``share``: of the requests, how many are answered with 503. ``fails(method, path)`` chooses some to always be.
    ``asked`` counts what was answered, by kind: ``list``, ``get``, ``head``, ``503``.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.share = 0.0
        self.fails: Callable[[str, str], bool] = lambda method, path: False
        self.asked: Counter[str] = Counter()
        self.client: Any = None
        self._count = 0
        self._lock = threading.Lock()

    def wrapping(self, application: Any) -> Any:
        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            method, path, query = (environ.get(name, "") for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING"))
            kind = "list" if "list-type=2" in query else method.lower()
            with self._lock:
                before = int(self._count * self.share)
                self._count += method in ("GET", "HEAD")
                is_throttled = int(self._count * self.share) > before
            is_throttled = self.fails(method, f"{path}?{query}".rstrip("?")) or is_throttled
            with self._lock:
                self.asked["503" if is_throttled else kind] += 1
            if is_throttled:
                start_response("503 Slow Down", [("Content-Type", "application/xml")])
                return [THROTTLED]
            return application(environ, start_response)

        return answer

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def empty(self, bucket: str) -> None:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", ()):
                self.delete(bucket, found["Key"])

    def delete(self, bucket: str, key: str) -> None:
        self.client.delete_object(Bucket=bucket, Key=key)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Runs while the block does; the environment leads every client there."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    from mmsearch.sources import remote

    server = S3Server("")
    application = server.wrapping(DomainDispatcherApplication(create_backend_app))
    running = make_server("127.0.0.1", 0, application, threaded=True)
    server.address = f"http://127.0.0.1:{running.server_port}"
    before = {name: os.environ.get(name) for name in (*VARIABLES, "AWS_ENDPOINT_URL")}
    os.environ.update(VARIABLES, AWS_ENDPOINT_URL=server.address)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    remote.forget_drivers()
    try:
        server.client = boto3.client("s3")
        server.client.create_bucket(Bucket="photos")
        yield server
    finally:
        remote.forget_drivers()
        if server.client is not None:
            server.client.close()
        running.shutdown()
        thread.join()
        running.server_close()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
