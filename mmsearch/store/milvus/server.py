"""The connection to a Milvus server or file: the few calls that a store makes of it, and what goes wrong with them.

What servers lack shows here alone. 2.3 has no infix ``like``; it and milvus-lite differ in how a vector is updated. So
a store asks for what every server since 2.3 has: upsert, ``array_contains``, prefix bounds, iterators, aliases.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmsearch.core.errors import StoreUnreachable, UsageError
from mmsearch.store.base import FloatArray
from mmsearch.store.milvus.address import Address, credentials

INSTALL = "pip install 'mmsearch[milvus]'"
LIMIT = 16_384
"""Rows that a server gives for one search or query, at most."""
PAGE = 4096
"""Rows of one page where all are read."""
_TIMEOUT_S = 60.0
_CONNECT_S = 10.0
_EF = 128
"""How many neighbours HNSW keeps in mind, at least."""
HNSW = {"M": 16, "efConstruction": 200}

Entity = Mapping[str, Any]


class Server:
    """A connection; any number of threads may use it. ``calls`` counts what went over it and came back."""

    def __init__(self, address: Address) -> None:
        """
        Raises:
            UsageError: pymilvus (or, for a file, milvus-lite) is not installed.
            StoreUnreachable: nobody answers.
        """
        self.address = address
        self.calls = 0
        self._lock = threading.Lock()
        milvus = _pymilvus()
        if address.is_file:
            try:
                import milvus_lite  # noqa: F401
            except ImportError as error:
                raise UsageError(f"{address.text} needs milvus-lite, which is not installed: {INSTALL}") from error
            address.path.parent.mkdir(parents=True, exist_ok=True)
        given: dict[str, Any] = {} if address.is_file else credentials()
        if address.database:
            given["db_name"] = address.database
        try:
            self._client = milvus.MilvusClient(uri=address.uri, timeout=_CONNECT_S, **given)
            self.version = str(self._client.get_server_version())
        except Exception as error:
            raise self._failed(error, "open it") from error

    @property
    def is_lite(self) -> bool:
        """Whether it is a file of milvus-lite."""
        return self.address.is_file

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def _failed(self, error: Exception, doing: str) -> Exception:
        """What is said of an error: who did not answer, or what it said."""
        text = " ".join(str(getattr(error, "message", None) or error).split())[:400]
        if type(error).__module__.split(".")[0] not in ("pymilvus", "grpc", "milvus_lite"):
            return error
        if "unauthenticated" in text.lower() or "auth check" in text.lower() or "permission" in text.lower():
            from mmsearch.store.milvus.address import PASSWORD, TOKEN, USER

            return StoreUnreachable(
                f"{self.address.text} refuses the user ({text}): set {TOKEN}, or {USER} and {PASSWORD}, in the "
                "environment"
            )
        what = "check that the server runs and the address is right" if not self.is_lite else (
            "a file of milvus-lite is open in one process at a time: end the other one"
        )  # fmt: skip
        return StoreUnreachable(f"Milvus at {self.address.text} could not {doing} ({text}): {what}")

    def _call(self, doing: str, method: str, *args: Any, **options: Any) -> Any:
        with self._lock:
            self.calls += 1
        try:
            return getattr(self._client, method)(*args, timeout=_TIMEOUT_S, **options)
        except Exception as error:
            raise self._failed(error, doing) from error

    # Collections

    def has(self, name: str) -> bool:
        """Whether there is a collection, or an alias of one."""
        return bool(self._call("look for a collection", "has_collection", name))

    def behind(self, alias: str) -> str | None:
        """The collection that an alias means; ``None`` where there is no such alias."""
        try:
            found = self._call("resolve an alias", "describe_alias", alias)
        except StoreUnreachable as error:
            if "not found" in str(error) or "not exist" in str(error) or "can't find" in str(error):
                return None
            raise
        return str(found["collection_name"]) if found else None

    def point(self, alias: str, collection: str) -> None:
        """Lets an alias mean a collection from now on, in one step."""
        there = self.behind(alias) is not None
        method = "alter_alias" if there else "create_alias"
        self._call("set an alias", method, collection_name=collection, alias=alias)

    def drop(self, collection: str) -> None:
        """Drops a collection, if there is one."""
        if self.has(collection):
            self._call("drop a collection", "drop_collection", collection)

    def schema(self) -> Any:
        """A schema without fields."""
        return self._client.create_schema(auto_id=False, enable_dynamic_field=False)

    def create(self, name: str, schema: Any, index: str) -> None:
        """Makes a collection, whose field ``vector`` is searched by an index ``flat`` or ``hnsw``, by inner product."""
        indexes = self._client.prepare_index_params()
        kind: dict[str, Any] = {"index_type": "FLAT"} if index == "flat" else {"index_type": "HNSW", "params": HNSW}
        indexes.add_index("vector", metric_type="IP", **kind)
        self._call(
            "make a collection", "create_collection", name, schema=schema, index_params=indexes,
            consistency_level="Session",
        )  # fmt: skip

    def index_of(self, name: str) -> str:
        """``flat`` or ``hnsw``."""
        found = self._call("describe an index", "describe_index", name, "vector") or {}
        return str(found.get("index_type", "FLAT")).lower()

    def load(self, name: str) -> None:
        """Makes a collection searchable."""
        self._call("load a collection", "load_collection", name)

    # Rows

    def search(
        self, name: str, vectors: FloatArray, limit: int, expression: str, columns: Sequence[str], ef: int = _EF
    ) -> list[list[tuple[float, Entity]]]:
        """Of each vector the nearest rows, best first: inner products and columns."""
        asked = np.ascontiguousarray(vectors, dtype=np.float32).tolist()
        found = self._call(
            "search", "search", name, asked, filter=expression, limit=limit,
            output_fields=list(columns), anns_field="vector",
            search_params={"metric_type": "IP", "params": {"ef": min(max(ef, limit), 32_768)}},
            consistency_level="Session",
        )  # fmt: skip
        return [[(hit["distance"], hit["entity"]) for hit in hits] for hits in found]

    def query(
        self, name: str, expression: str, columns: Sequence[str], limit: int | None = None, *, strong: bool = False
    ) -> list[Entity]:
        """Rows of which an expression is true, at most ``limit``: those with the least ids."""
        more: dict[str, Any] = {} if limit is None else {"limit": min(limit, LIMIT)}
        if more and self.is_lite:
            more["iterator"] = "True"  # servers sort by id; a file with several segments only does if it is told so
        level = "Strong" if strong else "Session"
        found = self._call(
            "query", "query", name, filter=expression, output_fields=list(columns), consistency_level=level, **more
        )
        return list(found)

    def count(self, name: str, expression: str, *, strong: bool = False) -> int:
        """Of how many rows it is true."""
        return int(self.query(name, expression, ["count(*)"], strong=strong)[0]["count(*)"])

    def pages(
        self, name: str, expression: str, columns: Sequence[str], size: int = PAGE, key: str = "id"
    ) -> Iterator[list[Entity]]:
        """All rows of which an expression is true, by ascending ``id``, a page at a time."""
        wanted = list(dict.fromkeys((key, *columns)))
        last = -1
        while True:
            page = self.query(name, f"{key} > {last} and ({expression})", wanted, size)
            if page:
                page.sort(key=lambda row: row[key])
                yield page
            if len(page) < size:
                return
            last = page[-1][key]

    def upsert(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows, each in place of that with its id. No id may come twice."""
        if rows:
            self._call("write", "upsert", name, data=list(rows))

    def delete(self, name: str, expression: str) -> None:
        """Deletes the rows of which an expression is true."""
        self._call("delete", "delete", name, filter=expression)

    def flush(self, name: str) -> None:
        """Seals what was written, so that its index is built."""
        self._call("flush", "flush", name)


def _pymilvus() -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is raised, and said once
    try:
        import pymilvus
    except ImportError as error:
        raise UsageError(f"a Milvus store needs pymilvus, which is not installed: {INSTALL}") from error
    for name in ("pymilvus", "grpc._server", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus
