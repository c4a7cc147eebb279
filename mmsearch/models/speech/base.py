"""The contract of a recogniser of speech."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.media.sound.passages import Cue, Word

Samples = npt.NDArray[np.float32]
"""Sound of one channel at 16,000 samples a second, −1 to 1, (n,)."""
RATE = 16_000


class Heard(NamedTuple):
    """What was recognised in some sound: ``cues`` with times in seconds from its beginning, and the language
    (ISO 639-1) with its probability, 0 to 1.
    """

    cues: Sequence[Cue]
    language: str | None = None
    probability: float = 1.0


@dataclass(frozen=True)
class VoicedPart:
    """Some seconds of a recording in which somebody speaks, without the pauses between. ``spans``: of each stretch its
    place in ``samples`` and in the recording, and its length, in seconds. ``is_first``: nothing came before it.
    """

    samples: Samples
    spans: Sequence[tuple[float, float, float]]
    is_first: bool = False

    @property
    def nbytes(self) -> int:
        """Of its samples."""
        return self.samples.nbytes

    def in_recording(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Times in the samples as times in the recording; an end stays in the stretch in which its beginning lies."""
        place, start, length = next((span for span in reversed(self.spans) if span[0] <= start_s + 0.05), self.spans[0])
        first = start + min(max(0.0, start_s - place), length)
        return first, max(first, start + min(end_s - place, length))

    def cues_in_recording(self, cues: Iterable[Cue]) -> list[Cue]:
        """What was recognised in the samples, with times in the recording."""
        moved = []
        for cue in cues:
            words = tuple(Word(word.text, *self.in_recording(word.start_s, word.end_s)) for word in cue.words)
            start, end = self.in_recording(cue.start_s, cue.end_s)
            if words:
                start, end = words[0].start_s, max(word.end_s for word in words)
            moved.append(cue._replace(start_s=start, end_s=end, words=words))
        return moved


class SpeechRecogniser(ABC):
    """Hears what is said. Called from one thread at a time."""

    name: str
    """Names the model and its weights; recordings that it has heard are not heard by it again."""

    @abstractmethod
    def voiced(self, blocks: Iterable[Samples]) -> Iterator[VoicedPart]:
        """The parts of a recording that `recognise` should hear, of at most half a minute each; silence, noise and
        music are none. ``blocks`` are all of the recording, one after another, and few of them are held at a time. It
        may be called from another thread.
        """

    @abstractmethod
    def recognise(self, samples: Samples, language: str | None = None) -> Heard:
        """What is said in at most half a minute, in ``language`` where it is given, else in the one it seems to be.

        What nobody said (text that a model makes up in noise) must be left out.
        """
