"""An index directory as an older mmsearch wrote it: by the statements of that schema, not by today's code."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import sqlite_utils

from mmsearch.core.types import EncoderSpec
from mmsearch.store.local import migrations


@dataclass(frozen=True)
class OldDocument:
    """An image file that was indexed; ``vectors``, (segments, dim), belong to it alone."""

    path: Path
    vectors: np.ndarray
    hash: bytes
    decoding: str = "old"
    width: int | None = None
    height: int | None = None


def write_old_index(
    place: Path, spec: EncoderSpec, root: Path, documents: Sequence[OldDocument], *, steps: int = 1
) -> Path:
    """Makes an index of schema ``steps``, at most 8 (then the tables got other names), and returns ``place``."""
    place.mkdir(parents=True)
    vectors = [row for document in documents for row in document.vectors]
    (place / "vectors-old.f16").write_bytes(np.asarray(vectors, dtype="<f2").tobytes())
    with sqlite3.connect(place / "catalogue.sqlite", isolation_level=None) as sql:
        sql.execute("PRAGMA journal_mode = WAL")
        for step in migrations.STEPS[:steps]:
            step(sqlite_utils.Database(sql))
        sql.execute(f"PRAGMA user_version = {steps}")
        sql.execute(
            "INSERT INTO towers (id, spec, dim, file, row_count) VALUES (1, ?, ?, 'vectors-old.f16', ?)",
            [json.dumps(asdict(spec)), spec.dim, len(vectors)],
        )
        sql.execute("INSERT INTO roots (id, path, is_relative) VALUES (1, ?, 0)", [str(root)])
        segment = 0
        for number, document in enumerate(documents, start=1):
            sql.execute(
                "INSERT INTO contents (id, hash, decoding, modality, width, height) VALUES (?, ?, ?, 'image', ?, ?)",
                [number, document.hash, document.decoding, document.width, document.height],
            )
            for ordinal in range(len(document.vectors)):
                segment += 1
                sql.execute(
                    "INSERT INTO segments (id, content_id, ordinal) VALUES (?, ?, ?)", [segment, number, ordinal]
                )
                sql.execute("INSERT INTO vectors VALUES (1, ?, ?, 'image')", [segment - 1, segment])
            status = document.path.stat()
            sql.execute(
                """INSERT INTO documents (root_id, path, modality, size, mtime_ns, content_id)
                   VALUES (1, ?, 'image', ?, ?, ?)""",
                [document.path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns, number],
            )
    sql.close()
    manifest = {"model": spec.name, "encoder": asdict(spec), "recipe": "exact", "format": 1, "vector_index": None}
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place
