"""Why a document was found: the parts of its score, the words it shares, and where in the picture it matched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.core.errors import UsageError
from mmsearch.core.modalities import has_pictures
from mmsearch.core.types import Hit, Modality
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.models.rerankers.base import Reranker
from mmsearch.query.fuse import content_words, lines_read, shared_words
from mmsearch.query.heat import HeatSource, heat_of
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import EncodedQuestion, load_picture
from mmsearch.query.searcher import Searcher
from mmsearch.sources import located
from mmsearch.store.base import Document, Store

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class Explanation:
    """``parts`` sum to the ``score``, by which documents are ranked. ``words``: words of the question in what is
    written about the document, by place (path, folder, caption, description, text; picture: what was read in it).
    ``excluded``: phrases of the question that it shows too much of. ``allowed``: whether the question's filters say
    yes.

    ``said``: of a video or recording in which something is said, the passage that fits best, a hit with parts of its
    own; ``said_words``: the words of the question in it. ``sounds``: the window of its sound that fits best, where
    sounds were indexed. All else is about what can be seen.

    ``heat`` float32 (``GRID``, ``GRID``), 0 to 1, rows from the top: how well each part of the picture matches;
    ``None`` for texts. ``heat_source``: what it was read from, see `mmsearch.query.heat`. ``time_s``: the frame of a
    video that it is about.
    """

    path: str
    modality: Modality
    parts: Mapping[str, float]
    relevance: float | None
    words: Mapping[str, tuple[str, ...]]
    excluded: tuple[str, ...]
    allowed: bool
    heat: FloatArray | None
    time_s: float | None
    heat_source: HeatSource | None = None
    said: Hit | None = None
    said_words: tuple[str, ...] = ()
    sounds: Hit | None = None

    @property
    def score(self) -> float:
        """The sum of the parts."""
        return float(sum(self.parts.values()))


def explain(
    searcher: Searcher,
    encoder: Encoder,
    asked: EncodedQuestion,
    path: Path,
    options: SearchOptions = SearchOptions(),
    *,
    with_heat: bool = True,
    reranker: Reranker | None = None,
) -> Explanation:
    """Explains what a question and an indexed file have to do with each other; ``reranker``: let it draw the heat map.

    Raises:
        UsageError: the file is not in the index, the question has nothing to compare with, or (for the heat map)
            the file cannot be read.
    """
    if asked.is_listing:
        raise UsageError("the question has only filters: there is nothing to explain")
    store, document = searcher.store, find_document(searcher.store, path)
    if document is None:
        raise UsageError(f"{path} is not in the index: index it first")
    vector, one, relevance, excluded, allowed = searcher.judge(asked, options, document.id)
    heat = None
    if with_heat and has_pictures(one.segment.modality):
        picture = load_picture(path, 640, at_s=one.segment.start_s)
        heat = heat_of(encoder, picture, vector, " ".join(asked.question.texts), reranker)
    wanted = content_words(asked.question.texts)
    said = searcher.judge_speech(asked, options, document.id)
    written = store.written(document.id)
    if one.segment.text:
        written["text"] = one.segment.text
    if read := lines_read(store, one.segment.id, wanted):
        written["picture"] = read
    shared = {place: shared_words(wanted, text) for place, text in written.items()}
    return Explanation(
        path=str(path),
        modality=one.segment.modality,
        parts=one.parts,
        relevance=relevance,
        words={place: found for place, found in shared.items() if found},
        excluded=excluded,
        allowed=allowed,
        heat=None if heat is None else heat.map,
        time_s=one.segment.start_s,
        heat_source=None if heat is None else heat.source,
        said=said,
        said_words=tuple(word for word in wanted if said is not None and word in content_words([said.text or ""])),
        sounds=searcher.judge_sounds(asked, document.id),
    )


def drawn_heat(found: Explanation, side: int = 640) -> Image:
    """The picture that an explanation is about, its shorter side at most ``side`` pixels, with the heat map over it.

    Raises:
        UsageError: it is about a text, was made without the map, or the file cannot be read any more.
    """
    from mmsearch.query.heat import overlay

    if found.heat is None:
        raise UsageError(f"{found.path} is a text: there is no picture to draw")
    return overlay(load_picture(Path(found.path), side, at_s=found.time_s), found.heat)


def find_document(store: Store, path: Path) -> Document | None:
    """The document at a path; ``None`` where there is none."""
    try:
        wanted = located(path).expanduser().absolute()
        places = dict.fromkeys((str(wanted), str(wanted.resolve())))
    except (OSError, RuntimeError, ValueError):  # no home of that name, a circle of links, a NUL in it
        return None
    return next((found for place in places if (found := store.find(place)) is not None), None)
