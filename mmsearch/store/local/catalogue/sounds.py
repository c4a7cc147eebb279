"""Statements on what sounds in videos and recordings: windows of sound with vectors, in a space of their own.

They are no segments, of which every one has a vector of the encoder that answers, and their vectors lie in the tables
themselves: there are few of them (360 an hour, 0.4 MB), and they come, go and are committed with their content.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import EncoderSpec
from mmsearch.store.local.catalogue.catalogue import Catalogue
from mmsearch.store.local.catalogue.coverage import IN_SCOPES, Lacking
from mmsearch.store.local.catalogue.rows import Root

SOUNDING = ("video", "sound")
"""Modalities whose documents may be heard."""
DTYPE = np.dtype("<f2")


@dataclass(frozen=True)
class SoundContent:
    """What came of listening to a content: ``spans`` (start and end in seconds) of the n windows in which anything can
    be heard, and their ``vectors`` (n, dim). ``problem``: why it could not be listened to.
    """

    content_id: int
    spans: Sequence[tuple[float, float]]
    vectors: npt.NDArray[np.floating[Any]]
    problem: str | None = None


class SoundRows(NamedTuple):
    """All windows, by content and time: ids of contents int64 (n,), spans float64 (n, 2), vectors float16 (n, dim)."""

    contents: npt.NDArray[np.int64]
    spans: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float16]


def sound_encoder(catalogue: Catalogue) -> EncoderSpec | None:
    """The encoder whose windows there are, or are to be; its ``name`` opens it."""
    row = catalogue.sql.execute("SELECT spec FROM sound_encoder").fetchone()
    return None if row is None else EncoderSpec(**json.loads(row[0]))


def claim_sounds(catalogue: Catalogue, spec: EncoderSpec) -> None:
    """From now on windows are this encoder's; those of another one are dropped. Within a transaction."""
    known = sound_encoder(catalogue)
    if known == spec:
        return
    if known is None or (known.digest, known.preprocessing) != (spec.digest, spec.preprocessing):
        drop_sounds(catalogue)
    catalogue.sql.execute("INSERT OR REPLACE INTO sound_encoder VALUES (1, ?)", [json.dumps(asdict(spec))])


def drop_sounds(catalogue: Catalogue) -> None:
    """Forgets all windows and whose they were. Within a transaction."""
    for table in ("sounds", "listened", "sound_encoder"):
        catalogue.sql.execute(f"DELETE FROM {table}")
    catalogue.sql.execute("UPDATE revision SET number = number + 1")


def lacking_sounds(scopes: Iterable[tuple[int, str]]) -> Lacking:
    """Videos and recordings in some scopes that nobody has listened to for what sounds in them."""
    condition = f"""c.modality IN {SOUNDING} AND {IN_SCOPES}
        AND NOT EXISTS (SELECT 1 FROM listened l WHERE l.content_id = c.id)"""
    return Lacking(condition, {"scopes": json.dumps(list(scopes))})


def put_sounds(catalogue: Catalogue, heard: SoundContent) -> None:
    """Records it in place of what was known; nothing where the content is gone. Within a transaction."""
    sql = catalogue.sql
    if sql.execute("SELECT 1 FROM contents WHERE id = ?", [heard.content_id]).fetchone() is None:
        return
    sql.execute("DELETE FROM sounds WHERE content_id = ?", [heard.content_id])
    vectors = np.ascontiguousarray(heard.vectors, dtype=DTYPE)
    sql.executemany(
        "INSERT INTO sounds (content_id, start_s, end_s, vector, checksum) VALUES (?, ?, ?, ?, ?)",
        [
            (heard.content_id, *span, vector.tobytes(), _checksum(vector.tobytes()))
            for span, vector in zip(heard.spans, vectors, strict=True)
        ],
    )
    sql.execute("INSERT OR REPLACE INTO listened VALUES (?, ?)", [heard.content_id, heard.problem])
    sql.execute("UPDATE revision SET number = number + 1")


def sound_rows(catalogue: Catalogue, dim: int) -> SoundRows:
    """See `SoundRows`; those of absent documents alone are among them."""
    rows = catalogue.sql.execute(
        "SELECT content_id, start_s, end_s, vector FROM sounds WHERE length(vector) = ? ORDER BY content_id, start_s",
        [dim * DTYPE.itemsize],
    ).fetchall()
    return SoundRows(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1:3] for row in rows], dtype=np.float64).reshape(-1, 2),
        np.frombuffer(b"".join(row[3] for row in rows), dtype=DTYPE).reshape(-1, dim),
    )


def content_of_document(catalogue: Catalogue, document_id: int) -> int:
    """The id of what a document holds; 0: there is no such document."""
    row = catalogue.sql.execute("SELECT content_id FROM documents WHERE id = ?", [document_id]).fetchone()
    return 0 if row is None else int(row[0])


def documents_that_sound(catalogue: Catalogue, contents: Sequence[int]) -> list[tuple[int, int, Root, str]]:
    """The documents of some contents: id, id of the content, root and path, by id."""
    marks = ", ".join(str(int(content)) for content in contents)
    rows = catalogue.sql.execute(
        f"""SELECT d.id, d.content_id, r.id, r.path, r.is_relative, d.path
            FROM documents d JOIN roots r ON r.id = d.root_id WHERE d.content_id IN ({marks}) ORDER BY d.id"""
    )
    return [(row[0], row[1], Root(row[2], row[3], bool(row[4])), row[5]) for row in rows]


def sound_counts(catalogue: Catalogue) -> dict[str, Any] | None:
    """What `status` shows: the ``encoder``, how many videos and recordings it has ``heard``, ``of`` how many, what
    ``failed``, and the number of ``windows``; ``None`` where there is none.
    """
    spec = sound_encoder(catalogue)
    if spec is None:
        return None
    row = catalogue.sql.execute(
        f"""SELECT count(l.content_id), count(*), count(l.problem) FROM documents d
            LEFT JOIN listened l ON l.content_id = d.content_id WHERE d.modality IN {SOUNDING}"""
    ).fetchone()
    windows = catalogue.sql.execute("SELECT count(*) FROM sounds").fetchone()[0]
    return {"encoder": spec.name, "heard": row[0], "of": row[1], "failed": row[2], "windows": windows}


def bad_sounds(catalogue: Catalogue) -> list[tuple[int, str]]:
    """Contents with a window that is not what was committed, or with windows although nobody listened: id, and the
    path of a document.
    """
    wrong = {
        content
        for content, vector, checksum in catalogue.sql.execute("SELECT content_id, vector, checksum FROM sounds")
        if _checksum(vector) != checksum
    }
    unheard = "SELECT DISTINCT content_id FROM sounds WHERE content_id NOT IN (SELECT content_id FROM listened)"
    wrong |= {content for (content,) in catalogue.sql.execute(unheard)}
    path = "SELECT path FROM documents WHERE content_id = ? LIMIT 1"
    found = [(content, catalogue.sql.execute(path, [content]).fetchone()) for content in sorted(wrong)]
    return [(content, f"content {content}" if row is None else row[0]) for content, row in found]


def forget_sounds(catalogue: Catalogue, contents: Iterable[int]) -> None:
    """Lets contents be listened to again. Within a transaction."""
    for table in ("sounds", "listened"):
        catalogue.sql.executemany(f"DELETE FROM {table} WHERE content_id = ?", [(content,) for content in contents])


def _checksum(vector: bytes) -> bytes:
    return blake2b(vector, digest_size=8).digest()
