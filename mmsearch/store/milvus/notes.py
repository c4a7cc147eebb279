"""What a store keeps beside its rows: a side collection of short texts by key.

space:COLLECTION          the encoder, the name that opens it, how rows were written
version:COLLECTION        another text after each change
calibration:COLLECTION    which parts make up the calibration, and parts/COLLECTION/… themselves
skipped/ROOT<NUL>PATH     files that could not be indexed, and why
"""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.store.milvus.server import Server
from mmsearch.store.milvus.where import beginning_with, quoted

PART = 60_000
"""Bytes of a value in one row."""
_VECTOR = [0.0, 1.0]
"""Not every server lets a collection have none."""


class Notes:
    """Texts by key, in a collection of their own. Reads see what any client has written."""

    def __init__(self, server: Server, name: str) -> None:
        self._server, self._name = server, name

    def create(self) -> None:
        """Makes the collection, if there is none."""
        if self._server.has(self._name):
            self.load()
            return
        from pymilvus import DataType

        schema = self._server.schema()
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=16_000)
        schema.add_field("value", DataType.VARCHAR, max_length=65_535)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        self._server.create(self._name, schema, "flat")

    def load(self) -> None:
        """Makes it readable, which a file that is opened again is not."""
        self._server.load(self._name)

    def read(self, keys: Sequence[str], *, strong: bool = False) -> dict[str, str]:
        """The values of those keys that there are."""
        expression = f"key in {json.dumps(list(keys), ensure_ascii=False)}"
        found = self._server.query(self._name, expression, ["key", "value"], strong=strong)
        return {row["key"]: row["value"] for row in found}

    def below(self, beginning: str) -> dict[str, str]:
        """Those whose keys begin so."""
        found: dict[str, str] = {}
        last = beginning
        while True:
            expression = f"{beginning_with('key', beginning)} and key > {quoted(last)}"
            page = self._server.query(self._name, expression, ["key", "value"], 1000)
            found |= {row["key"]: row["value"] for row in page}
            if len(page) < 1000:
                return found
            last = max(row["key"] for row in page)

    def write(self, values: Mapping[str, str]) -> None:
        """Keeps values, in place of those of the same keys."""
        rows = [{"key": key, "value": value, "vector": _VECTOR} for key, value in values.items()]
        for start in range(0, len(rows), 200):
            self._server.upsert(self._name, rows[start : start + 200])

    def forget(self, keys: Iterable[str]) -> None:
        """Drops values."""
        wanted = list(keys)
        for start in range(0, len(wanted), 500):
            self._server.delete(self._name, f"key in {json.dumps(wanted[start : start + 500], ensure_ascii=False)}")

    # Arrays

    def arrays(self, what: str, collection: str) -> dict[str, npt.NDArray[Any]]:
        """Those that `keep_arrays` kept; none where they are not whole."""
        head = self.read([f"{what}:{collection}"]).get(f"{what}:{collection}")
        if head is None:
            return {}
        known = json.loads(head)
        keys = [f"parts/{collection}/{known['name']}/{number:05d}" for number in range(known["parts"])]
        found: dict[str, str] = {}
        for start in range(0, len(keys), 100):
            found |= self.read(keys[start : start + 100])
        if len(found) < len(keys):
            return {}
        with np.load(io.BytesIO(base64.b85decode("".join(found[key] for key in keys)))) as stored:
            return {name: stored[name] for name in stored.files}

    def keep_arrays(self, what: str, collection: str, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keeps arrays together; what names them is written last, so they are there whole or as they were."""
        before = set(self.below(f"parts/{collection}/"))
        file, name = io.BytesIO(), uuid.uuid4().hex
        given: dict[str, Any] = dict(values)
        np.savez_compressed(file, **given)
        text = base64.b85encode(file.getvalue()).decode()
        parts = [text[start : start + PART] for start in range(0, len(text), PART)]
        self.write({f"parts/{collection}/{name}/{number:05d}": part for number, part in enumerate(parts)})
        self.write({f"{what}:{collection}": json.dumps({"name": name, "parts": len(parts)})})
        self.forget(before)
