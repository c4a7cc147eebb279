"""What the index lacks, for each space and whatever else is made of contents, and what it can do without."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmsearch.core.types import Modality
from mmsearch.store.base import DATASET
from mmsearch.store.local.catalogue.catalogue import Catalogue
from mmsearch.store.local.catalogue.rows import Root

_LACKS = """EXISTS (SELECT 1 FROM segments s WHERE s.content_id = c.id AND NOT EXISTS
    (SELECT 1 FROM vectors v WHERE v.segment_id = s.id AND v.space_id = :space))"""
_USED = "EXISTS (SELECT 1 FROM documents WHERE content_id = c.id)"
_UNSAID = "s.id NOT IN (SELECT segment_id FROM spoken)"
IN_SCOPES = """c.id IN (SELECT d.content_id
            FROM (SELECT json_extract(value, '$[0]') AS root, json_extract(value, '$[1]') AS below
                  FROM json_each(:scopes)) scope
            JOIN documents d ON d.root_id = scope.root
            WHERE below = '' OR d.path = below OR (d.path >= below || '/' AND d.path < below || '0'))"""
"""Contents with a document in one of the scopes, JSON of [root id, path below]."""
_UNEXPLAINED = "NOT EXISTS (SELECT 1 FROM left_out l WHERE l.space_id = :space AND l.content_id = c.id)"


@dataclass(frozen=True)
class Coverage:
    """How many ``documents`` the index has, and of how many of them a space has all vectors (``covered``).

    ``left_out``: documents without all vectors for a reason that is recorded. The others are waiting for theirs.
    """

    documents: int
    covered: int
    left_out: int

    @property
    def waiting(self) -> int:
        """Documents that lack vectors and nobody has said why."""
        return self.documents - self.covered - self.left_out

    @property
    def share(self) -> float:
        """``covered`` of ``documents``, 0 to 1; 1 for an empty index."""
        return self.covered / self.documents if self.documents else 1.0


class StoredSegment(NamedTuple):
    """A segment that has an id; its times and its text as they were committed."""

    id: int
    start_s: float | None
    end_s: float | None
    text: str | None


class Place(NamedTuple):
    """Where a content lies: a document of it."""

    document_id: int
    root: Root
    path: str
    size: int
    mtime_ns: int
    sidecars: str = ""


@dataclass(frozen=True)
class PendingContent:
    """A content of which something is lacking; ``segments``: those of the file itself, not what is said in it."""

    id: int
    hash: bytes
    decoding: str
    modality: Modality
    segments: Sequence[StoredSegment]
    places: Sequence[Place]


def coverage(catalogue: Catalogue, space_id: int) -> Coverage:
    """Counts the documents of the whole index."""
    if not catalogue.sql.execute(
        """SELECT (SELECT count(*) FROM segments) <> (SELECT count(*) FROM vectors WHERE space_id = ?)""", [space_id]
    ).fetchone()[0]:  # every segment has its vector: nothing to look for
        documents = int(catalogue.sql.execute("SELECT count(*) FROM documents").fetchone()[0])
        return Coverage(documents, documents, 0)
    row = catalogue.sql.execute(
        f"""WITH lacking AS (
              SELECT {_UNEXPLAINED} AS waits, (SELECT count(*) FROM documents WHERE content_id = c.id) AS documents
              FROM contents c WHERE {_LACKS})
            SELECT (SELECT count(*) FROM documents), coalesce(sum(documents), 0),
                   coalesce(sum(documents * (NOT waits)), 0) FROM lacking""",
        {"space": space_id},
    ).fetchone()
    return Coverage(row[0], row[0] - row[1], row[2])


def describe_spaces(catalogue: Catalogue, answering: int, model: str) -> list[dict[str, Any]]:
    """What `status` says of each space; the one with the id ``answering`` is opened by the name ``model``."""
    described = []
    for space in catalogue.spaces():
        counts = coverage(catalogue, space.id)
        described.append(
            {
                "model": model if space.id == answering else space.spec.name,
                "encoder": space.spec.describe(),
                "answers": space.id == answering,
                "vectors": space.row_count,
                "documents": counts.documents,
                "covered": counts.covered,
                "left_out": counts.left_out,
                "coverage": counts.share,
            }
        )
    return described


@dataclass(frozen=True)
class Lacking:
    """What is lacking of contents: a condition in SQL on a content ``c``, and its parameters."""

    condition: str
    parameters: Mapping[str, Any]

    def contents(self, catalogue: Catalogue, after: int = 0, limit: int = 2048) -> list[PendingContent]:
        """Up to ``limit`` contents with ids above ``after`` that lack it and have a document, by id."""
        rows = catalogue.sql.execute(
            f"""SELECT c.id, c.hash, c.decoding, c.modality FROM contents c
                WHERE c.id > :after AND {_USED} AND {self.condition} ORDER BY c.id LIMIT :limit""",
            {**self.parameters, "after": after, "limit": limit},
        ).fetchall()
        return [
            PendingContent(id_, hash_, decoding, modality, _segments(catalogue, id_), _places(catalogue, id_))
            for id_, hash_, decoding, modality in rows
        ]

    def count(self, catalogue: Catalogue) -> int:
        """How many contents those are in all."""
        row = catalogue.sql.execute(
            f"SELECT count(*) FROM contents c WHERE {_USED} AND {self.condition}", self.parameters
        ).fetchone()
        return int(row[0])


def lacking_vectors(space_id: int, *, retry: bool) -> Lacking:
    """Vectors of a space. With ``retry``, contents that were left out for a recorded reason come too."""
    return Lacking(f"{_LACKS} AND (:retry OR {_UNEXPLAINED})", {"space": space_id, "retry": retry})


def lacking_tokens(catalogue: Catalogue, file_id: int) -> Lacking:
    """Image tokens in a file of the reranker cache, of pictures and frames that lie on the disk."""
    condition = f"""c.modality IN ({catalogue.pictured()})
        AND EXISTS (SELECT 1 FROM segments s WHERE s.content_id = c.id AND {_UNSAID} AND NOT EXISTS
        (SELECT 1 FROM tokens t WHERE t.segment_id = s.id AND t.file_id = :file)) AND EXISTS
        (SELECT 1 FROM documents d JOIN roots r ON r.id = d.root_id WHERE d.content_id = c.id
         AND r.path NOT LIKE '{DATASET}%')"""
    return Lacking(condition, {"file": file_id})


def lacking_text(catalogue: Catalogue, reader: str, scopes: Iterable[tuple[int, str]]) -> Lacking:
    """What ``reader`` reads in pictures and videos with a document in one of the scopes, as (root id, path below)."""
    condition = f"""c.modality IN ({catalogue.pictured()})
        AND NOT EXISTS (SELECT 1 FROM readings g WHERE g.content_id = c.id AND g.reader = :reader)
        AND {IN_SCOPES}"""
    return Lacking(condition, {"reader": reader, "scopes": json.dumps(list(scopes))})


def _segments(catalogue: Catalogue, content_id: int) -> list[StoredSegment]:
    rows = catalogue.sql.execute(
        f"SELECT id, start_s, end_s, text FROM segments s WHERE content_id = ? AND {_UNSAID} ORDER BY ordinal",
        [content_id],
    )
    return [StoredSegment._make(row) for row in rows]


def _places(catalogue: Catalogue, content_id: int) -> list[Place]:
    rows = catalogue.sql.execute(
        """SELECT d.id, r.id, r.path, r.is_relative, d.path, d.size, d.mtime_ns, d.sidecars
           FROM documents d JOIN roots r ON r.id = d.root_id WHERE d.content_id = ? ORDER BY d.id""",
        [content_id],
    )
    return [Place(row[0], Root(row[1], row[2], bool(row[3])), *row[4:]) for row in rows]


def pending_passages(catalogue: Catalogue, space_id: int, after: int, limit: int) -> list[tuple[int, int, str]]:
    """Up to ``limit`` passages without a vector of the space, as (segment id, content id, text), by segment id."""
    return catalogue.sql.execute(
        f"""SELECT s.id, c.id, s.text FROM segments s CROSS JOIN contents c ON c.id = s.content_id
           WHERE s.id > :after AND s.text IS NOT NULL AND (c.modality NOT IN ({catalogue.pictured()}) OR NOT {_UNSAID})
           AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.segment_id = s.id AND v.space_id = :space)
           ORDER BY s.id LIMIT :limit""",
        {"space": space_id, "after": after, "limit": limit},
    ).fetchall()


def segments_of_content(catalogue: Catalogue, hash_: bytes, decoding: str) -> list[int]:
    """The ids of a content's segments, in their order."""
    rows = catalogue.sql.execute(
        """SELECT s.id FROM segments s JOIN contents c ON c.id = s.content_id
           WHERE c.hash = ? AND c.decoding = ? AND s.id NOT IN (SELECT segment_id FROM spoken) ORDER BY s.ordinal""",
        [hash_, decoding],
    )
    return [id_ for (id_,) in rows]


def lacking_segments(catalogue: Catalogue, space_id: int, segments: Iterable[int]) -> list[int]:
    """Which of some segments are still there and without a vector of the space, in their order."""
    question = """SELECT 1 FROM segments s WHERE s.id = ? AND NOT EXISTS
                  (SELECT 1 FROM vectors v WHERE v.segment_id = s.id AND v.space_id = ?)"""
    sql = catalogue.sql
    return [segment for segment in segments if sql.execute(question, [segment, space_id]).fetchone()]


def add_vectors(catalogue: Catalogue, space_id: int, segments: Sequence[int], first_row: int) -> None:
    """Gives segments the rows from ``first_row`` on, in their order, which are committed by `Catalogue.set_row_count`;
    their contents are no longer left out.
    """
    catalogue.sql.executemany(
        """INSERT INTO vectors (space_id, row, segment_id, modality)
           SELECT ?, ?, s.id, iif(s.id IN (SELECT segment_id FROM spoken), 'speech', c.modality)
           FROM segments s JOIN contents c ON c.id = s.content_id WHERE s.id = ?""",
        [(space_id, first_row + number, segment) for number, segment in enumerate(segments)],
    )
    catalogue.sql.executemany(
        "DELETE FROM left_out WHERE space_id = ? AND content_id = (SELECT content_id FROM segments WHERE id = ?)",
        [(space_id, segment) for segment in segments],
    )


def leave_out(catalogue: Catalogue, space_id: int, reasons: Iterable[tuple[int, str]]) -> None:
    """Records why contents, given as (id, reason), have no vectors of the space; contents that are gone are not."""
    catalogue.sql.executemany(
        "INSERT OR REPLACE INTO left_out SELECT ?, id, ? FROM contents WHERE id = ?",
        [(space_id, reason, content_id) for content_id, reason in reasons],
    )


def left_out(catalogue: Catalogue, space_id: int) -> list[tuple[Root, str, str]]:
    """Documents that the space was left without vectors of: root, path and reason, by root and path."""
    rows = catalogue.sql.execute(
        """SELECT r.id, r.path, r.is_relative, d.path, l.reason FROM left_out l
           JOIN documents d ON d.content_id = l.content_id JOIN roots r ON r.id = d.root_id
           WHERE l.space_id = ? ORDER BY r.id, d.path""",
        [space_id],
    )
    return [(Root(row[0], row[1], bool(row[2])), row[3], row[4]) for row in rows]


def drop_space(catalogue: Catalogue, space_id: int) -> None:
    """Forgets an encoder and all of its vectors."""
    catalogue.sql.execute("DELETE FROM spaces WHERE id = ?", [space_id])
