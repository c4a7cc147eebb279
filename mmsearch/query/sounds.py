"""What sounds in videos and recordings beside what is seen and said: windows of sound in a space of their own.

Cosines of different encoders cannot be compared. The relevance of a window is what it would be in a zero-shot
classification: the share of the query in the softmax over it and generic sounds, with the scale that the encoder was
trained with. Nobody has measured here how often a window of so much is right, so that counts `MOST` at most: sounds
come before pictures and passages that hardly fit, and never before those that do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from mmsearch.core.errors import EncoderError
from mmsearch.core.types import DocumentInfo, Hit
from mmsearch.filters import Not, OneOf, Spoken
from mmsearch.models.sounds.base import SoundEncoder
from mmsearch.query.context import where_of
from mmsearch.query.options import MATCH, SearchOptions
from mmsearch.query.question import Question
from mmsearch.store.base import FloatArray, Sounds, SoundWindow, Store

AUDIO = "audio"
MOST = 0.15
"""The relevance of a window that is the query's and nothing else's; as much as that of what is said, by its meaning."""
LEAST = 0.015
"""Below this relevance a window is of no use to anybody who did not ask for sounds."""
SAME = 0.9
"""From this cosine on two texts name the same sound."""
SCALE = 100.0
"""Where an encoder does not say what it was trained with: that of CLIP."""
GENERIC = (
    "silence", "noise", "a hum", "a person speaking", "a conversation", "a crowd talking", "laughter", "crying",
    "a child speaking", "singing", "shouting", "coughing", "breathing", "footsteps", "applause", "cheering", "music",
    "a guitar", "a piano", "drums", "a violin", "electronic music", "an orchestra", "a song on the radio", "a dog",
    "a cat", "a bird", "a horse", "a cow", "an insect", "wind", "rain", "thunder", "water running", "waves", "fire",
    "a car passing", "a motorcycle", "a train", "an aeroplane", "a boat", "a siren", "a horn", "an engine idling",
    "traffic", "a bell", "an alarm", "a telephone ringing", "a clock ticking", "a door closing", "knocking",
    "glass breaking", "an explosion", "a gunshot", "a hammer", "a saw", "a drill", "a vacuum cleaner", "typing",
    "dishes clattering", "frying", "a camera clicking", "a machine running",
)  # fmt: skip
"""What else may sound: the upper classes of AudioSet (Gemmeke et al. 2017), and what is heard most."""
_LOG = logging.getLogger("mmsearch")


def asks_for_sounds(question: Question, options: SearchOptions) -> bool:
    """Whether a query names sounds among the kinds it wants."""
    return AUDIO in (options.modalities or question.modalities or ())


def may_sound(question: Question, options: SearchOptions) -> bool:
    """Whether a query looks for sounds: one in words, that does not say which kinds it wants or names sounds among
    them, is not about words that are said or written, and excludes nothing that only pictures can tell.
    """
    if len(question.texts) != 1 or question.images or question.exact or question.excluded:
        return False
    if any(isinstance(part, Spoken) for part in question.filters):
        return False
    left_out = (one.part for one in question.filters if isinstance(one, Not) and isinstance(one.part, OneOf))
    if any(one.field == "modality" and AUDIO in one.values for one in left_out):
        return False
    return (options.modalities or question.modalities) is None or asks_for_sounds(question, options)


def without_sounds(question: Question, options: SearchOptions) -> SearchOptions | None:
    """The options of the search for everything else; ``None`` where nothing else is wanted."""
    named = options.modalities or question.modalities
    if named is None or AUDIO not in named:
        return options
    others = tuple(name for name in named if name != AUDIO)
    return replace(options, modalities=others) if others else None


class SoundSearch:
    """Finds sounds for queries. The encoder is opened when it is needed first. Any number of threads may search."""

    def __init__(self, open_encoder: Callable[[str], SoundEncoder]) -> None:
        """``open_encoder`` opens one by its name, and may keep it."""
        self._open = open_encoder
        self._failed: str | None = None
        self._generic: dict[str, FloatArray] = {}

    def find(self, store: Store, question: Question, options: SearchOptions) -> list[Hit]:
        """The best window of each of the k best documents, best first; nothing where sounds are not looked for.

        Raises:
            EncoderError: sounds are asked for by name, and their encoder cannot be opened. For other queries a logger
                gets the reason, once, and they are done without.
        """
        sounds = store.sounds() if may_sound(question, options) else None
        if sounds is None:
            return []
        vector = self._vector(sounds, question, is_asked=asks_for_sounds(question, options))
        if vector is None:
            return []
        kinds = [one for one in question.filters if isinstance(one, OneOf) and one.field == "modality"]
        others = tuple(one for one in question.filters if one not in kinds)
        where = where_of(replace(question, filters=others), None)
        found = sounds.nearest(vector, options.k, where)
        known = store.describe([window.segment.document for window in found])
        hits = [self._hit(sounds, vector, window, known) for window in found]
        hits.sort(key=lambda hit: -(hit.relevance or 0.0))
        if not asks_for_sounds(question, options):
            hits = [hit for hit in hits if (hit.relevance or 0.0) >= LEAST]
        least = max(options.min_relevance or 0.0, MATCH if options.strict else 0.0)
        hits = [hit for hit in hits if (hit.relevance or 0.0) >= least]
        return [replace(hit, rank=rank) for rank, hit in enumerate(hits, 1)]

    def judge(self, store: Store, question: Question, document: int) -> Hit | None:
        """The window of a document that fits a query in words best, whether or not it would be found."""
        sounds = store.sounds() if len(question.texts) == 1 and not question.images else None
        vector = None if sounds is None else self._vector(sounds, question, is_asked=False)
        if sounds is None or vector is None:
            return None
        window = sounds.of_document(vector, document)
        return None if window is None else self._hit(sounds, vector, window, {})

    def _vector(self, sounds: Sounds, question: Question, *, is_asked: bool) -> FloatArray | None:
        try:
            encoder = self._open(sounds.spec.name)
            if (encoder.spec.digest, encoder.spec.dim) != (sounds.spec.digest, sounds.spec.dim):
                raise EncoderError(
                    f"the sounds of the index are of {sounds.spec.describe()}, and {encoder.spec.describe()} is on "
                    "this machine: run `mmsearch index --sounds` again"
                )
            vector: FloatArray = encoder.encode_texts([question.texts[0]])[0]
            if encoder.spec.digest not in self._generic:
                self._generic[encoder.spec.digest] = encoder.encode_texts(GENERIC)
        except EncoderError as error:
            if is_asked:
                raise
            if self._failed != str(error):
                _LOG.warning("sounds are not looked for: %s", error)
                self._failed = str(error)
            return None
        return vector

    def _hit(self, sounds: Sounds, vector: FloatArray, window: SoundWindow, known: Mapping[int, DocumentInfo]) -> Hit:
        segment = window.segment
        scale = sounds.spec.logit_scale or SCALE
        share = share_of_query(vector, self._generic[sounds.spec.digest], window.vector, scale)
        return Hit(
            rank=1, score=window.cosine, path=segment.path, modality=segment.modality, segment=segment.ordinal,
            start_s=segment.start_s, end_s=segment.end_s, relevance=MOST * share,
            parts={"similarity": window.cosine}, match=MOST * share >= MATCH, document=known.get(segment.document),
        )  # fmt: skip


def share_of_query(query: FloatArray, generic: FloatArray, window: FloatArray, scale: float) -> float:
    """The softmax of a window's cosines with a query and with generic sounds, (dim,), (n, dim) and (dim,), at the place
    of the query. A generic sound that means what the query does is not held against it.
    """
    differs = generic @ query < SAME
    others = generic[differs] if differs.any() else generic
    logits = scale * np.concatenate([[window @ query], others @ window]).astype(np.float64)
    shares = np.exp(logits - logits.max())
    return float(shares[0] / shares.sum())
