"""The windows of sound of an index directory: all of them are compared, as there are few."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import EncoderSpec
from mmsearch.filters import Where
from mmsearch.store.base import FloatArray, Segment, SoundWindow
from mmsearch.store.local.catalogue.sounds import content_of_document, documents_that_sound, sound_rows
from mmsearch.store.local.directory import IndexDirectory

BLOCK = 65_536
_CONTENTS = 512
"""Contents whose documents are looked up at a time."""
AUDIO = "audio"
Matching = Callable[[Sequence[int], Where], set[int]]
"""Which of some documents satisfy a condition: `Store.matching`."""


class LocalSounds:
    """See `mmsearch.store.base.Sounds`; reads the vectors when it is made."""

    def __init__(self, directory: IndexDirectory, spec: EncoderSpec, matching: Matching) -> None:
        self.spec, self._matching = spec, matching
        self._directory = directory
        self._contents, self._spans, self._vectors = sound_rows(directory.catalogue, spec.dim)

    def nearest(self, vector: FloatArray, k: int, where: Where | None) -> list[SoundWindow]:
        """The best window of each of the k nearest documents that satisfy ``where``, best first."""
        if not len(self._contents):
            return []
        scores = self._scores(vector)
        order = np.lexsort((self._spans[:, 0], self._contents, -scores))
        places = order[np.sort(np.unique(self._contents[order], return_index=True)[1])]  # the best of each content
        found: list[SoundWindow] = []
        for start in range(0, len(places), _CONTENTS):
            found += self._windows(places[start : start + _CONTENTS], scores, where)
            if len(found) >= k:
                break
        return found[:k]

    def of_document(self, vector: FloatArray, document: int) -> SoundWindow | None:
        """The window of a document that fits best; ``None`` where nothing is known to sound in it."""
        places = np.flatnonzero(self._contents == content_of_document(self._directory.catalogue, document))
        if not len(places):
            return None
        scores = self._scores(vector)
        best = places[np.argmax(scores[places])][None]
        return next(one for one in self._windows(best, scores, None) if one.segment.document == document)

    def _scores(self, vector: FloatArray) -> FloatArray:
        scores = np.empty(len(self._vectors), dtype=np.float32)
        for start in range(0, len(scores), BLOCK):
            scores[start : start + BLOCK] = self._vectors[start : start + BLOCK].astype(np.float32) @ vector
        return scores

    def _windows(self, places: npt.NDArray[np.intp], scores: FloatArray, where: Where | None) -> list[SoundWindow]:
        """Those at some places, each of another content, in the documents that satisfy ``where``, best first."""
        place_of = {int(self._contents[place]): int(place) for place in places}
        documents = documents_that_sound(self._directory.catalogue, list(place_of))
        if where is not None:
            may = self._matching([document for document, *_ in documents], where)
            documents = [one for one in documents if one[0] in may]
        windows = []
        for document, content, root, path in documents:
            place = place_of[content]
            start, end = self._spans[place].tolist()
            file = self._directory.place(root.path, root.is_relative, path)
            segment = Segment(-1, document, file, AUDIO, 0, start, end)
            windows.append(SoundWindow(segment, float(scores[place]), self._vectors[place].astype(np.float32)))
        return sorted(windows, key=lambda window: (-window.cosine, window.segment.document))
