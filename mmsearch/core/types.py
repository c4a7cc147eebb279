"""The words of mmsearch as types: what the rooms of the package hand to each other.

Nothing here does work. Every type is frozen, so that a value can be shared between threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

Modality = str
"""The name of a modality; `mmsearch.core.modalities` describes it."""

SCHEMA = 3
"""Of the JSON that mmsearch gives; raised when a field changes its meaning or goes away.

3: ``relevance`` of a hit is the chance that it is right, and ``match`` tells matches from weaker ones; in 2 it was the
share of generic queries with a worse best hit.
2: ``score`` of a hit is the sum of its ``parts``, by which hits are ranked; in 1 it was the cosine alone, which is
``parts.similarity``. ``total`` of `explain` is called ``score``. Hits listed by filters alone have a ``date``.
"""

ScoreType = Literal["cosine", "sigmoid"]
"""How a model was trained to compare: CLIP-like softmax over cosines, or SigLIP's pairwise sigmoid."""


@dataclass(frozen=True)
class EncoderSpec:
    """The identity of an encoder. Two encoders with equal ``digest`` and ``preprocessing`` give equal vectors.

    ``digest`` is the hex SHA-256 of the weights; ``dim`` the length of a vector; ``preprocessing`` a short
    text that names size, resizing and normalisation of the image encoder.
    """

    name: str
    digest: str
    dim: int
    preprocessing: str
    score_type: ScoreType = "cosine"
    logit_scale: float | None = None
    logit_bias: float | None = None

    @property
    def key(self) -> str:
        """The short name of this identity: files that hold its vectors carry it."""
        return self.digest[:12]

    def describe(self) -> str:
        """One human line, used by errors that must name two encoders."""
        return f"{self.name} ({self.dim}-d, weights {self.key}, {self.preprocessing})"


@dataclass(frozen=True)
class MediaInfo:
    """What a file says of itself. Every field is ``None`` where the file does not say.

    ``taken_at`` is ISO 8601 local time without zone (what EXIF gives); ``latitude`` and ``longitude`` are
    degrees, north and east positive; ``duration_s`` seconds; ``width`` and ``height`` pixels, upright; ``rating``
    stars, 1 to 5, 0 for none and −1 for rejected.
    """

    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    taken_at: str | None = None
    camera: str | None = None
    lens: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    rating: int | None = None
    description: str | None = None
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    note: str | None = None
    """What could not be read although the file was indexed (a broken tail, say)."""


@dataclass(frozen=True)
class DocumentInfo:
    """What lists show of a document. ``path`` is absolute (of an imported one, as it was given), ``size`` bytes,
    ``mtime_ns`` when its file was changed, both as of indexing.

    ``date``: ISO 8601 local time, when it was taken, else when the file was changed; ``None`` where neither is known.
    ``id`` is valid as long as the index stays the same.
    """

    id: int
    path: str
    modality: Modality
    size: int
    mtime_ns: int
    date: str | None
    info: MediaInfo = field(default_factory=MediaInfo)

    @property
    def folder(self) -> str:
        """Where it lies; empty for what was imported with a bare name."""
        return self.path.rpartition("/")[0] or ("/" if self.path.startswith("/") else "")

    def as_json(self) -> dict[str, Any]:
        """What is known, as values that JSON knows."""
        info = self.info
        values = {
            "path": self.path, "name": self.path.rpartition("/")[2], "folder": self.folder, "modality": self.modality,
            "date": self.date, "size": self.size, "width": info.width, "height": info.height,
            "duration_s": info.duration_s, "camera": info.camera, "lens": info.lens, "latitude": info.latitude,
            "longitude": info.longitude, "rating": info.rating,
        }  # fmt: skip
        return {name: value for name, value in values.items() if value is not None}


DateRule = Literal["always", "alone", "another day"]
"""When the date beside a file counts: whatever the file says; only where it says none (the date at which a scan was
made); where it is none, or so far off that no time zone explains it (Takeout's is in UTC, but may have been corrected
by hand)."""
_ZONES = timedelta(hours=15)
"""More than any clock on Earth differs from UTC."""


@dataclass(frozen=True)
class Beside:
    """What is written beside a file. ``info`` has date, camera, lens, place and rating, as far as they are known."""

    caption: str | None = None
    info: MediaInfo = field(default_factory=MediaInfo)
    rule: DateRule = "always"

    def date_for(self, own: str | None) -> str | None:
        """The date that counts in place of the file's ``own``, both ISO 8601; ``None``: its own does."""
        date = self.info.taken_at
        if date is None or own is None or self.rule == "always":
            return date
        try:
            apart = abs(datetime.fromisoformat(date) - datetime.fromisoformat(own).replace(tzinfo=None))
        except ValueError:
            return None
        return date if self.rule == "another day" and apart > _ZONES else None


NOTHING_BESIDE = Beside()


@dataclass(frozen=True)
class Skip:
    """A file that was seen and not indexed, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What one run of indexing did. Counts are files; every file seen is counted exactly once."""

    indexed: int = 0
    unchanged: int = 0
    updated: int = 0
    removed: int = 0
    skipped: tuple[Skip, ...] = ()
    segments: int = 0
    interrupted: bool = False
    absent: int = 0
    """Documents below the places of the run that are not there now and are kept: see `mmsearch.pipeline.vanished`."""
    absent_at: tuple[str, ...] = ()
    """The places that they vanished with."""
    back: int = 0
    """Documents that had been absent and are there again, unchanged."""
    text_read: int = 0
    """Pictures and videos whose text was read in this run (`IngestOptions.ocr`)."""
    text_unread: tuple[Skip, ...] = ()
    """Those whose text could not be read; they are indexed all the same."""
    subtitled: int = 0
    """Videos and recordings whose subtitles were read in this run."""
    recognised: int = 0
    """Those in which speech was recognised (`IngestOptions.speech`)."""
    unheard: tuple[Skip, ...] = ()
    """Those whose subtitles or speech could not be read; they are indexed all the same."""
    sounding: int = 0
    """Those of which windows of sound were encoded (`IngestOptions.sounds`)."""
    unsounded: tuple[Skip, ...] = ()
    """Those whose sound could not be read for that; they are indexed all the same."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds of the run (``total``) and busy seconds of each stage, summed over its workers.

    ``wait`` are the seconds for which the encoder had nothing to do because no input was ready.
    """

    @property
    def limited_by(self) -> str | None:
        """The stage that the run would gain most from being faster: walk, decode, encode or commit.

        One thread takes the inputs, encodes and commits them, so its time tells: what it spends waiting is lost to
        the readers. ``None`` where nothing was read.
        """
        spent = {name: self.seconds.get(name, 0.0) for name in ("walk", "encode", "commit")}
        spent["decode"] = self.seconds.get("wait", 0.0)
        slowest = max(spent, key=lambda name: spent[name])
        return slowest if spent[slowest] > 0 else None


@dataclass(frozen=True)
class Progress:
    """Where a run of indexing stands: handed to the progress callback, from one thread at a time."""

    stage: Literal["walk", "index", "tokens", "finish", "read", "listen"]
    done: int
    total: int | None
    skipped: int = 0
    path: str | None = None


@dataclass(frozen=True)
class Hit:
    """One result.

    ``score`` is what hits are ranked by, the sum of ``parts``: ``similarity``, the cosine of the query's vector and the
    segment's, −1 to 1; ``hubness`` and ``words``; where they count, ``rerank`` and ``excluded``. (A reranker orders the
    first hits only: they stand before the others, whatever those score.) A query of filters alone ranks by ``date``,
    ISO 8601 local time: when it was taken, else when the file was changed; ``score`` is 0 then, without parts. ``path``
    is absolute.
    ``segment`` is the segment's number inside its document, from 0; ``start_s``/``end_s`` are seconds of a
    video moment, ``best_s`` the time of its best frame; ``text`` the passage of a text document. They are
    ``None`` where they do not apply.

    ``relevance``, 0 to 1, is the calibrated number: of pictures found by a text the chance that the hit is right (1
    where all words of the text are written there), of others see `mmsearch.query.calibrate.calibration`; ``None``
    where too little is known. It never rises from one hit to the next. ``match``: whether it is high enough, or not
    known and no weaker hit stands before; the other hits are the weaker matches, and stand behind.
    ``duplicates``: paths of near-duplicates folded into this hit. ``read``: the lines read in the picture or frame
    (OCR) that have words of the query, where those made it rise. ``language``: of a spoken passage, ISO 639-1; its
    ``text`` is what is said from ``start_s`` to ``end_s``. ``document``: what is known of the file.
    """

    rank: int
    score: float
    path: str
    modality: Modality
    segment: int
    start_s: float | None = None
    end_s: float | None = None
    text: str | None = None
    relevance: float | None = None
    best_s: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict, hash=False)
    duplicates: tuple[str, ...] = ()
    read: str | None = None
    date: str | None = None
    language: str | None = None
    match: bool = True
    document: DocumentInfo | None = field(default=None, compare=False, repr=False)

    @property
    def info(self) -> MediaInfo:
        """What the file says of itself: its date, camera, place, size in pixels and the like."""
        return MediaInfo() if self.document is None else self.document.info

    @property
    def shown_s(self) -> float | None:
        """The time of the frame that stands for a moment of a video."""
        return self.start_s if self.best_s is None else self.best_s

    def as_json(self) -> dict[str, Any]:
        """The fields as values that JSON knows, as the command line and the server give them; see `SCHEMA`."""
        return {
            "rank": self.rank,
            "score": round(self.score, 6),
            "path": self.path,
            "modality": self.modality,
            "segment": self.segment,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "text": self.text,
            "relevance": None if self.relevance is None else round(self.relevance, 4),
            "best_s": self.best_s,
            "parts": {name: round(value, 6) for name, value in self.parts.items()},
            "duplicates": list(self.duplicates),
            "read": self.read,
            "date": self.date,
            "language": self.language,
            "match": self.match,
        }
