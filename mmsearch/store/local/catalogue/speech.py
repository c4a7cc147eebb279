"""Statements on what is said in videos and recordings: passages are segments of their contents, by the side of frames.

``heard`` says what a content was looked through for: ``subtitles`` are NULL where they are to be looked for (anew),
empty where there were none, else they name where they came from; ``recogniser`` made the passages where they did not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.store.base import NewSegment, Speech
from mmsearch.store.local.catalogue.catalogue import Catalogue
from mmsearch.store.local.catalogue.coverage import IN_SCOPES, Lacking
from mmsearch.store.local.catalogue.space_tables import marks

_Vectors = npt.NDArray[np.floating[Any]]
_ELSEWHERE = "import"
"""Source of passages that came with their document from another index."""
HEARD = ("video", "sound")
"""Modalities whose documents may have passages."""


@dataclass(frozen=True)
class SpokenPassage:
    """What is said from ``start_s`` to ``end_s``; ``words``: each with its own start and end, where these are known."""

    start_s: float
    end_s: float
    text: str
    language: str | None = None
    words: Sequence[tuple[str, float, float]] = ()


@dataclass(frozen=True)
class HeardContent:
    """What came of listening to a content. ``source``: names the subtitles, or the recogniser if ``is_recognised``;
    empty where there are no subtitles. ``problem``: what could not be read.
    """

    content_id: int
    source: str
    is_recognised: bool
    passages: Sequence[SpokenPassage]
    problem: str | None = None


def lacking_subtitles(scopes: Iterable[tuple[int, str]]) -> Lacking:
    """Videos and recordings in some scopes whose subtitles are to be looked for."""
    condition = f"""c.modality IN {HEARD} AND {IN_SCOPES}
        AND NOT EXISTS (SELECT 1 FROM heard h WHERE h.content_id = c.id AND h.subtitles IS NOT NULL)"""
    return Lacking(condition, {"scopes": json.dumps(list(scopes))})


def lacking_speech(recogniser: str, scopes: Iterable[tuple[int, str]]) -> Lacking:
    """Those without subtitles that ``recogniser`` has not heard."""
    condition = f"""c.modality IN {HEARD} AND {IN_SCOPES} AND EXISTS (SELECT 1 FROM heard h
        WHERE h.content_id = c.id AND h.subtitles = '' AND h.recogniser IS NOT :recogniser)"""
    return Lacking(condition, {"recogniser": recogniser, "scopes": json.dumps(list(scopes))})


def parted(
    segments: Sequence[NewSegment],
) -> tuple[list[tuple[float | None, float | None, str | None]], list[SpokenPassage], npt.NDArray[np.bool_]]:
    """The segments of a document that comes from elsewhere: start, end and text of its own, what is said in it, and
    which (n,) are that.
    """
    said = np.array([one.kind == "speech" for one in segments], dtype=bool)
    own = [(one.start_s, one.end_s, one.text) for one in segments if one.kind != "speech"]
    return own, [SpokenPassage(*astuple(one)[:3]) for one in segments if one.kind == "speech"], said


def unheard(
    catalogue: Catalogue, given: Iterable[tuple[int, tuple[list[SpokenPassage], _Vectors]]]
) -> list[tuple[HeardContent, _Vectors]]:
    """What is said in contents, by id, that nobody has listened to yet, with the vectors (n, dim) of the passages."""
    found = {
        content: (HeardContent(content, _ELSEWHERE, is_recognised=False, passages=passages), vectors)
        for content, (passages, vectors) in given
        if passages
    }
    listened = "SELECT 1 FROM heard WHERE content_id = ?"
    return [one for content, one in found.items() if catalogue.sql.execute(listened, [content]).fetchone() is None]


def put_heard(catalogue: Catalogue, space_id: int, heard: HeardContent, first_row: int) -> bool:
    """Records it, with the vectors of its passages in the rows from ``first_row`` on; ``False``: the content is gone.

    Subtitles take the place of whatever was there; where there are none, what a recogniser made stays.
    """
    sql = catalogue.sql
    if sql.execute("SELECT 1 FROM contents WHERE id = ?", [heard.content_id]).fetchone() is None:
        return False
    before = sql.execute("SELECT subtitles, recogniser FROM heard WHERE content_id = ?", [heard.content_id]).fetchone()
    recogniser = heard.source if heard.is_recognised else None
    keeps = not heard.is_recognised and not heard.source and before is not None and before[1] is not None
    if keeps:
        recogniser = before[1]
    else:
        drop_passages(catalogue, heard.content_id)
        _add_passages(catalogue, space_id, heard, first_row)
    sql.execute(
        "INSERT OR REPLACE INTO heard (content_id, subtitles, recogniser, problem) VALUES (?, ?, ?, ?)",
        [heard.content_id, "" if heard.is_recognised else heard.source, recogniser, heard.problem],
    )
    return True


def drop_passages(catalogue: Catalogue, content_id: int) -> None:
    """Forgets what is said in a content."""
    catalogue.sql.execute(
        """DELETE FROM segments WHERE content_id = :content
           AND id IN (SELECT segment_id FROM spoken)""",
        {"content": content_id},
    )


def _add_passages(catalogue: Catalogue, space_id: int, heard: HeardContent, first_row: int) -> None:
    sql = catalogue.sql
    first = sql.execute(
        "SELECT coalesce(max(ordinal) + 1, 0) FROM segments WHERE content_id = ?", [heard.content_id]
    ).fetchone()[0]
    for number, one in enumerate(heard.passages):
        segment = sql.execute(
            "INSERT INTO segments (content_id, ordinal, start_s, end_s, text) VALUES (?, ?, ?, ?, ?)",
            [heard.content_id, first + number, one.start_s, one.end_s, one.text],
        ).lastrowid
        words = json.dumps(
            [[text, round(start, 2), round(end, 2)] for text, start, end in one.words], ensure_ascii=False
        )
        sql.execute("INSERT INTO spoken VALUES (?, ?, ?)", [segment, one.language, words if one.words else None])
        sql.execute(
            "INSERT INTO vectors (space_id, row, segment_id, modality) VALUES (?, ?, ?, 'speech')",
            [space_id, first_row + number, segment],
        )


# What a search asks


def spoken_rows(catalogue: Catalogue, space_id: int, phrases: Sequence[str], language: str | None) -> list[int]:
    """Rows of the vectors of passages that match all FTS5 queries ``phrases``, in a language."""
    condition = "".join(
        f" AND p.segment_id IN (SELECT rowid FROM segment_words WHERE segment_words MATCH :phrase_{number})"
        for number in range(len(phrases))
    )
    rows = catalogue.sql.execute(
        f"""SELECT v.row FROM spoken p JOIN vectors v ON v.segment_id = p.segment_id AND v.space_id = :space
            WHERE (:language IS NULL OR p.language = :language){condition} ORDER BY v.row""",
        {"space": space_id, "language": language} | {f"phrase_{i}": phrase for i, phrase in enumerate(phrases)},
    )
    return [row for (row,) in rows]


def speech_of_rows(catalogue: Catalogue, space_id: int, rows: Sequence[int]) -> dict[int, Speech]:
    """Language and times of the words of the passages among some rows, by row."""
    found = catalogue.sql.execute(
        f"""SELECT v.row, p.language, p.words FROM vectors v JOIN spoken p ON p.segment_id = v.segment_id
            WHERE v.space_id = ? AND v.row IN ({marks(rows)})""",
        [space_id, *(int(row) for row in rows)],
    )
    return {row: Speech(language, tuple(map(tuple, json.loads(words or "[]")))) for row, language, words in found}


def transcript_of_document(catalogue: Catalogue, document_id: int) -> list[SpokenPassage]:
    """All passages of a video or recording, by time."""
    rows = catalogue.sql.execute(
        """SELECT s.start_s, s.end_s, s.text, p.language, p.words FROM documents d
           JOIN segments s ON s.content_id = d.content_id JOIN spoken p ON p.segment_id = s.id
           WHERE d.id = ? ORDER BY s.start_s, s.ordinal""",
        [document_id],
    )
    return [
        SpokenPassage(row[0], row[1], row[2], row[3], tuple(map(tuple, json.loads(row[4] or "[]")))) for row in rows
    ]


def is_anything_said(catalogue: Catalogue) -> bool:
    """Whether there is any passage at all."""
    return catalogue.sql.execute("SELECT 1 FROM spoken LIMIT 1").fetchone() is not None


def speech_counts(catalogue: Catalogue) -> dict[str, int]:
    """Videos and recordings that have passages (``with_speech``), that a recogniser heard (``recognised``), of how
    many in all (``of``); how many ``passages`` there are, and what ``failed``.
    """
    row = catalogue.sql.execute(
        f"""SELECT coalesce(sum(EXISTS (SELECT 1 FROM segments s JOIN spoken p ON p.segment_id = s.id
                                        WHERE s.content_id = d.content_id)), 0),
                   count(h.recogniser), count(*), count(h.problem)
            FROM documents d LEFT JOIN heard h ON h.content_id = d.content_id WHERE d.modality IN {HEARD}"""
    ).fetchone()
    passages = catalogue.sql.execute("SELECT count(*) FROM spoken").fetchone()[0]
    return {"with_speech": row[0], "recognised": row[1], "of": row[2], "failed": row[3], "passages": passages}
