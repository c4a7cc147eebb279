"""What can be asked of an open index: searches and explanations."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from mmsearch.api.index_encoder import IndexEncoder
from mmsearch.core.errors import EncoderError, UsageError
from mmsearch.core.types import EncoderSpec, Hit, Modality
from mmsearch.models.encoders.base import Encoder, EncoderOptions
from mmsearch.store.local.directory import IndexDirectory, same_encoder

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from mmsearch.models.rerankers.base import Reranker
    from mmsearch.query import Question, Searcher, SearchOptions
    from mmsearch.query.explain import Explanation
    from mmsearch.query.rerank import Reranking
    from mmsearch.store.local.vector_index import QueryKind

    Picture = str | os.PathLike[str] | Image

PathLike = str | os.PathLike[str]
Answer = TypeVar("Answer")


class Asking(ABC):
    """The part of `mmsearch.Index` that answers. Any number of threads may ask at once."""

    _directory: IndexDirectory
    _encoder: IndexEncoder
    _lock: threading.Lock
    _searcher: tuple[Any, Searcher] | None
    _options: EncoderOptions
    _rerankers: dict[str, Reranker]

    @abstractmethod
    def encoder(self, *, texts_only: bool = False) -> Encoder:
        """The encoder of the index, opened at first need."""

    @property
    @abstractmethod
    def encoder_spec(self) -> EncoderSpec:
        """The identity of the encoder that made the index."""

    @overload
    def search(
        self,
        text: str | Sequence[str] | None = None,
        *,
        image: Picture | Sequence[Picture] | None = None,
        k: int = 10,
        modality: Modality | Sequence[Modality] | None = None,
        raw: bool = False,
        text_weight: float | Sequence[float] = 1.0,
        image_weight: float | Sequence[float] = 1.0,
        min_score: float | None = None,
        collapse: bool = False,
        words: bool = True,
        reranker: str | Reranker | None = None,
        note: Callable[[str], None] | None = None,
        options: SearchOptions | None = None,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        *,
        vector: npt.ArrayLike,
        query_kind: QueryKind = "text",
        k: int = 10,
        modality: Modality | Sequence[Modality] | None = None,
    ) -> Any: ...

    def search(
        self,
        text: str | Sequence[str] | None = None,
        *,
        image: Picture | Sequence[Picture] | None = None,
        vector: npt.ArrayLike | None = None,
        query_kind: QueryKind = "text",
        k: int = 10,
        modality: Modality | Sequence[Modality] | None = None,
        raw: bool = False,
        text_weight: float | Sequence[float] = 1.0,
        image_weight: float | Sequence[float] = 1.0,
        min_score: float | None = None,
        collapse: bool = False,
        words: bool = True,
        reranker: str | Reranker | None = None,
        note: Callable[[str], None] | None = None,
        options: SearchOptions | None = None,
    ) -> Any:
        """The ``k`` documents that answer best, best first; fewer only if there are fewer.

        ``text`` is in the query language (`mmsearch.query.language`): ``"lake -people after:2021"``; with ``raw``
        it is taken literally. Several texts and images are one question that is like all of them, by weight:
        ``search("at night", image="house.jpg", text_weight=0.5)``. A text of filters alone lists by date.

        Without ``modality`` or ``type:``, images and videos answer. ``min_score`` leaves out hits of less
        relevance, 0 to 1; ``collapse`` folds near-duplicates; ``words=False`` ignores file names, folders, captions
        and texts. ``reranker``, or the name of one, puts the first answers to questions in words into a better order;
        where that cannot be done, they stay as they are, and ``note`` is told why (by default a logger). ``options``
        replaces all of these, ``k`` and ``modality``; depth and budget of the reranker are in there.

        ``vector`` instead of a text or an image: numbers of shape (dim,) give hits, (n, dim) a list of hits for
        each. Ranking is by cosine alone; ``query_kind`` says which tuned parameters of a vector index hold. What
        `status` says of recall can be checked with it.

        Raises:
            VectorError: a vector of another shape, of length 0, or with values that are not finite.
            UsageError: no query, an empty one, an unreadable image, or a senseless option; `QueryError` points
            at the character that breaks the query language.
        """
        if vector is not None:
            if text is not None or image is not None:
                raise UsageError("give a vector, or texts and images, not both")
            return self._search_vectors(vector, query_kind, _options(k, modality, None, False, False))
        question = _question(text, image, raw=raw, text_weight=text_weight, image_weight=image_weight)
        chosen = options or _options(k, modality, min_score, collapse, words)
        return self.search_many([question], reranker=reranker, note=note, options=chosen)[0]

    def _search_vectors(
        self, vector: npt.ArrayLike, kind: QueryKind, options: SearchOptions
    ) -> list[Hit] | list[list[Hit]]:
        from mmsearch.query.searcher import unit_vectors

        if kind not in ("text", "image"):
            raise UsageError(f"no such kind of query: {kind}; there are text and image")
        answers = self._asked(
            None, lambda _, searcher: searcher.nearest(unit_vectors(vector, searcher.store.spec.dim), kind, options)
        )
        return answers[0] if np.ndim(vector) == 1 else answers

    def _asked(self, encoder: Callable[[], Encoder] | None, ask: Callable[[Any, Searcher], Answer]) -> Answer:
        """What ``ask`` makes of the encoder and the current searcher, which are always of one model.

        Asked again when the index was switched to another model, or a compaction renumbered the rows, meanwhile: the
        rows may be other ones then, or their file may be gone.
        """
        while True:
            before = self._answering()
            try:
                opened = None if encoder is None else encoder()
                searcher = self._current_searcher()
                if opened is not None and not same_encoder(opened.spec, searcher.store.spec):
                    continue
                answer = ask(opened, searcher)
            except Exception:
                if self._answering() == before:
                    raise
                continue
            if self._answers_still(searcher):
                return answer

    def _answering(self) -> str:
        """The vector file that answers now."""
        with self._lock:
            self._directory.refresh()
            return self._directory.space().file

    def _answers_still(self, searcher: Searcher) -> bool:
        """Whether the searcher's encoder answers as far as this object knows, and its rows are those of the file."""
        is_of_index = same_encoder(self._directory.manifest.encoder, searcher.store.spec)
        return is_of_index and not searcher.store.is_stale()

    def search_many(
        self,
        questions: Sequence[str | Question],
        *,
        k: int = 10,
        modality: Modality | Sequence[Modality] | None = None,
        raw: bool = False,
        min_score: float | None = None,
        collapse: bool = False,
        words: bool = True,
        reranker: str | Reranker | None = None,
        note: Callable[[str], None] | None = None,
        options: SearchOptions | None = None,
    ) -> list[list[Hit]]:
        """The answers to many questions, in their order: few calls of the encoder, few of the vector search.

        Questions are texts, or `mmsearch.query.Question` for everything else. See `search` for the rest.
        """
        from mmsearch.query.searcher import run_queries

        chosen = options or _options(k, modality, min_score, collapse, words)
        asked = [_question(one, None, raw=raw) if isinstance(one, str) else one for one in questions]
        has_images = any(one.images for one in asked)
        needs_encoder = has_images or any(one.texts or one.excluded for one in asked)
        reranking = self._reranking(reranker or chosen.reranker, note)
        return self._asked(
            (lambda: self.encoder(texts_only=not has_images)) if needs_encoder else None,
            lambda encoder, searcher: run_queries(searcher, encoder, asked, chosen, reranking),
        )

    def reranker(self, name: str = "builtin") -> Reranker:
        """A reranker by name, opened at first need: that of the index's encoder, or any that `open_reranker` knows.

        Raises:
            ModelMissing: it is not on this machine.
            EncoderError: there is none of that name, or it cannot be opened.
        """
        from mmsearch.models.rerankers import open_reranker

        encoder = self.encoder()
        with self._lock:
            key = f"{name} {encoder.spec.key}"  # after a switch, the encoder's own reranker is another one
            if key not in self._rerankers:
                self._rerankers[key] = open_reranker(name, self._options, encoder)
            return self._rerankers[key]

    def _reranking(self, reranker: str | Reranker | None, note: Callable[[str], None] | None) -> Reranking | None:
        """What reranks the answers, if anything is asked to and can."""
        if reranker is None:
            return None
        from mmsearch.query.rerank import LOG, Reranking

        told = note or LOG.warning
        if not isinstance(reranker, str):
            return Reranking(reranker, told)
        try:
            return Reranking(self.reranker(reranker), told)
        except EncoderError as error:
            told(f"not reranked: {error}")
            return None

    def explain(
        self,
        text: str,
        path: PathLike,
        *,
        raw: bool = False,
        heat_map: bool = True,
        reranker: str | Reranker | None = None,
        note: Callable[[str], None] | None = None,
    ) -> Explanation:
        """Why an indexed file answers a question, or why not: the parts of its score, and a heat map of its picture.

        ``mmsearch.query.heat.overlay`` draws the map over the picture. With a ``reranker`` the map shows what that
        one looks at; ``note`` gets a line where it cannot be opened.

        Raises:
            UsageError: the file is not in the index.
        """
        from mmsearch.query import encode_questions
        from mmsearch.query.explain import explain

        reranking = self._reranking(reranker, note)

        def ask(encoder: Encoder, searcher: Searcher) -> Explanation:
            [asked] = encode_questions(encoder, [_question(text, None, raw=raw)])
            return explain(
                searcher, encoder, asked, Path(path), with_heat=heat_map,
                reranker=None if reranking is None else reranking.reranker,
            )  # fmt: skip

        return self._asked(lambda: self.encoder(texts_only=not heat_map), ask)

    def _current_searcher(self) -> Searcher:
        """A searcher of the last committed state; reopened when another thread or process has committed."""
        from mmsearch.query import Searcher
        from mmsearch.query.calibrate.calibration import LAZY, refresh_calibration
        from mmsearch.store.local.catalogue.matching import revision
        from mmsearch.store.local.store import LocalStore

        with self._lock:
            directory, ready = self._directory, self._encoder.ready
            state = (directory.state(), revision(directory.catalogue))
            if self._searcher is None or self._searcher[0] != state:
                store = LocalStore(directory)
                calibration = None if ready is None else refresh_calibration(store, ready, LAZY)
                self._searcher = (state, Searcher(store, calibration))
            return self._searcher[1]

    def _refresh_background(self, encoder: Encoder) -> None:
        from mmsearch.query.calibrate.calibration import refresh_calibration
        from mmsearch.store.local.store import LocalStore

        refresh_calibration(LocalStore(self._directory), encoder)


def _question(
    text: str | Sequence[str] | None,
    image: Picture | Sequence[Picture] | None,
    *,
    raw: bool,
    text_weight: float | Sequence[float] = 1.0,
    image_weight: float | Sequence[float] = 1.0,
) -> Question:
    from mmsearch.query import Question

    texts = [text] if isinstance(text, str) else list(text or ())
    pictures = list(image) if isinstance(image, (list, tuple)) else [] if image is None else [image]
    sources = [Path(one) if isinstance(one, (str, os.PathLike)) else one for one in pictures]
    return Question.of(texts, sources, text_weight=text_weight, image_weight=image_weight, raw=raw)


def _options(
    k: int,
    modality: Modality | Sequence[Modality] | None,
    min_score: float | None,
    collapse: bool,
    words: bool,
) -> SearchOptions:
    from mmsearch.query import SearchOptions

    modalities = (modality,) if isinstance(modality, str) else None if modality is None else tuple(modality)
    chosen = SearchOptions(k=k, modalities=modalities, min_relevance=min_score, collapse=collapse)
    return chosen if words else replace(chosen, words=0.0)
