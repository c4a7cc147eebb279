"""How well an open index answers, measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.api.asking import Asking, PathLike
from mmsearch.models.encoders.base import Encoder

if TYPE_CHECKING:
    from mmsearch.evaluate import EvaluationOptions, Run
    from mmsearch.query import Searcher


class Evaluating(Asking):
    """The part of `mmsearch.Index` that measures what it answers."""

    def evaluate(
        self,
        file: PathLike | None = None,
        *,
        qrels: PathLike | None = None,
        template: str = "a photo of a {}.",
        options: EvaluationOptions | None = None,
        reranker: Any = None,
        rerank_depth: int = 50,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Run:
        """How well the index answers the questions of a file; without one, the captions beside its own files.

        With a ``reranker``, some of the questions (`EvaluationOptions.rerank_questions`) are also asked one by one,
        without and with it, of which ``progress`` hears: the figures of both stand apart, with the time of each.

        See `mmsearch.evaluate.read_evaluation_set` for the kinds of files, `mmsearch.evaluate.DEFINITIONS` for
        the measures, `mmsearch.evaluate.compare_saved` to test two runs against each other.

        Raises:
            UsageError: the file cannot be read, or no right answer is in the index.
        """
        from mmsearch.evaluate import EvaluationOptions, Run, evaluate, read_evaluation_set
        from mmsearch.evaluate.measuring import captions_of_index
        from mmsearch.store.local.store import LocalStore

        if file is None:
            judged = captions_of_index(LocalStore(self._directory))
        else:
            judged = read_evaluation_set(Path(file), None if qrels is None else Path(qrels), template)
        chosen = options or EvaluationOptions()
        rank = None if reranker is None else self._ranking(reranker, rerank_depth, chosen.alpha)

        def ask(encoder: Encoder, searcher: Searcher) -> Run:
            self._refresh_background(encoder)
            found = evaluate(LocalStore(self._directory), encoder, judged, chosen, rank, progress)
            return Run.of(found, searcher.store.spec.describe())

        return self._asked(lambda: self.encoder(texts_only=True), ask)

    def _ranking(self, reranker: Any, depth: int, alpha: float) -> Callable[[str, bool], list[int]]:
        """Asks for ids of documents, without or with a reranker: pictures and hubness count, words do not."""
        from mmsearch.evaluate.matching import document_ids
        from mmsearch.query import SearchOptions
        from mmsearch.store.local.store import LocalStore

        ids = document_ids(LocalStore(self._directory))
        search = SearchOptions(k=depth, words=0.0, hubness=alpha, rerank_depth=depth)

        def rank(text: str, with_reranker: bool) -> list[int]:
            hits = self.search(text, raw=True, reranker=reranker if with_reranker else None, options=search)
            return [ids[hit.path] for hit in hits]

        return rank

    def agreement(self, judgements: PathLike, *, captions: PathLike | None = None) -> dict[str, float]:
        """Kendall's tau between scores and human grades; see `mmsearch.evaluate.agreement`."""
        from mmsearch.evaluate import agreement
        from mmsearch.store.local.store import LocalStore

        file = None if captions is None else Path(captions)
        return self._asked(
            lambda: self.encoder(texts_only=True),
            lambda encoder, _: agreement(LocalStore(self._directory), encoder, Path(judgements), file),
        )
