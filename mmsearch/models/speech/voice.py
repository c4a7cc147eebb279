"""Where somebody speaks: Silero's voice detection, which comes with faster-whisper, over a recording of any length."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import numpy as np

from mmsearch.models.speech.base import RATE, Samples, VoicedPart

LONGEST_S = 28.0
"""Seconds of a part: Whisper hears 30 at a time."""
BUFFER_S = 60.0
"""Seconds that are looked at together."""
PAUSE_MS = 400
"""A shorter silence does not divide speech."""
PAD_MS = 400
"""That is kept before and after speech."""
LEAST_MS = 200
"""Of speech: what is shorter is a noise."""
THRESHOLD = 0.5
"""Of the probability that somebody speaks."""


def voiced_parts(blocks: Iterable[Samples]) -> Iterator[VoicedPart]:
    """See `mmsearch.models.speech.base.SpeechRecogniser.voiced`. A stretch that goes on at the end of a buffer is
    looked at again together with what follows.
    """
    packing = _Packing()
    held = np.zeros(0, dtype=np.float32)
    start = 0
    for block in blocks:
        held = np.concatenate([held, block])
        if len(held) >= BUFFER_S * RATE:
            rest = yield from _look(packing, held, start, is_last=False)
            start += len(held) - rest
            held = held[len(held) - rest :]
    yield from _look(packing, held, start, is_last=True)
    yield from packing.finish()


def _look(packing: _Packing, samples: Samples, start: int, *, is_last: bool) -> Generator[VoicedPart, None, int]:
    """Packs the speech in a buffer that begins at sample ``start``; returns how many samples at its end are to be
    looked at again.
    """
    stretches = _speech(samples)
    end = len(samples)
    # Longer stretches than a part are cut by the detector, so what is left is never all of a buffer.
    if not is_last and stretches and stretches[-1][1] >= len(samples) - RATE and stretches[-1][0] > 0:
        end = stretches.pop()[0]
    for first, last in stretches:
        yield from packing.add(samples[first:last], (start + first) / RATE)
    return len(samples) - end


def _speech(samples: Samples) -> list[tuple[int, int]]:
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    if not len(samples) or not np.any(samples):
        return []
    options = VadOptions(
        threshold=THRESHOLD, min_speech_duration_ms=LEAST_MS, max_speech_duration_s=LONGEST_S,
        min_silence_duration_ms=PAUSE_MS, speech_pad_ms=PAD_MS,
    )  # fmt: skip
    return [(found["start"], found["end"]) for found in get_speech_timestamps(samples, options)]


class _Packing:
    """Puts stretches of speech together to parts of at most `LONGEST_S`."""

    def __init__(self) -> None:
        self._samples: list[Samples] = []
        self._spans: list[tuple[float, float, float]] = []
        self._held = 0.0
        self._is_first = True

    def add(self, samples: Samples, start_s: float) -> Iterator[VoicedPart]:
        length = len(samples) / RATE
        if self._held and self._held + length > LONGEST_S + 1:
            yield from self.finish()
        self._samples.append(samples)
        self._spans.append((self._held, start_s, length))
        self._held += length

    def finish(self) -> Iterator[VoicedPart]:
        if self._samples:
            yield VoicedPart(np.concatenate(self._samples), tuple(self._spans), self._is_first)
            self._samples, self._spans, self._held, self._is_first = [], [], 0.0, False
