"""Whisper by faster-whisper (CTranslate2). The only file that imports either, with `voice`.

A. Radford and others, Robust Speech Recognition via Large-Scale Weak Supervision (2022). The model makes up text where
nobody speaks; what betrays it are those that its authors name: a high probability of no speech with a low probability
of the text, and text that compresses well because it repeats itself.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmsearch.core.errors import EncoderError
from mmsearch.core.system import usable_cores
from mmsearch.media.sound.passages import Cue, Word
from mmsearch.models.speech.base import Heard, Samples, SpeechRecogniser, VoicedPart
from mmsearch.models.speech.voice import voiced_parts

NO_SPEECH = 0.6
LEAST_LOGPROB = -1.0
MOST_COMPRESSION = 2.4
"""The thresholds of the paper (section 4.5)."""
REPEATED = 3
"""So often may a phrase follow itself."""
_HASHED_BYTES = 1 << 20


class WhisperRecogniser(SpeechRecogniser):
    """Runs in int8 on processors, and in half precision on a GPU where there is one."""

    def __init__(self, folder: Path, name: str, *, device: str = "auto", threads: int | None = None) -> None:
        """``folder`` holds a model in the format of CTranslate2, which is called ``name``.

        Raises:
            EncoderError: it cannot be loaded.
        """
        import ctranslate2
        import faster_whisper

        logging.getLogger("faster_whisper").setLevel(logging.WARNING)
        on_gpu = device != "cpu" and ctranslate2.get_cuda_device_count() > 0
        try:
            self._model: Any = faster_whisper.WhisperModel(
                str(folder),
                device="cuda" if on_gpu else "cpu",
                compute_type="float16" if on_gpu else "int8",
                cpu_threads=threads or usable_cores(),
                local_files_only=True,
            )
        except Exception as error:  # of many kinds, where a file is damaged
            raise EncoderError(f"the speech model in {folder} cannot be loaded: {error}") from error
        self.name = f"{name} {_digest(folder / 'model.bin')}"

    def voiced(self, blocks: Iterable[Samples]) -> Iterator[VoicedPart]:
        """See `SpeechRecogniser.voiced`."""
        return voiced_parts(blocks)

    def recognise(self, samples: Samples, language: str | None = None) -> Heard:
        """See `SpeechRecogniser.recognise`."""
        segments, info = self._model.transcribe(
            samples,
            language=language if language in self._model.supported_languages else None,
            beam_size=2,
            temperature=(0.0, 0.4, 0.8),
            condition_on_previous_text=False,
            no_speech_threshold=NO_SPEECH,
            log_prob_threshold=LEAST_LOGPROB,
            compression_ratio_threshold=MOST_COMPRESSION,
            word_timestamps=True,
            vad_filter=False,
        )
        cues = [cue for segment in segments if (cue := _cue(segment, info.language)) is not None]
        return Heard(without_repetitions(cues), info.language, float(info.language_probability))


def _cue(segment: Any, language: str) -> Cue | None:
    is_unlikely = segment.no_speech_prob > NO_SPEECH and segment.avg_logprob < LEAST_LOGPROB
    if is_unlikely or segment.avg_logprob < 2 * LEAST_LOGPROB or segment.compression_ratio > MOST_COMPRESSION:
        return None
    words = tuple(Word(word.word, float(word.start), float(word.end)) for word in segment.words or ())
    text = segment.text.strip()
    return Cue(float(segment.start), float(segment.end), text, language, words) if any(map(str.isalnum, text)) else None


def without_repetitions(cues: list[Cue]) -> list[Cue]:
    """Without what a model says again and again: a cue that repeats the one before it, and one that repeats itself."""
    kept: list[Cue] = []
    for cue in cues:
        words = re.findall(r"\w+", cue.text.casefold())
        loops = any(
            words[:size] * (len(words) // size) == words[: size * (len(words) // size)]
            for size in range(1, len(words) // (REPEATED + 1) + 1)
        )
        is_again = len(kept) >= 1 and len(words) > 1 and kept[-1].text.casefold() == cue.text.casefold()
        if not loops and not is_again:
            kept.append(cue)
    return kept


def _digest(path: Path) -> str:
    """Names weights: their size, and the beginning and the end of them."""
    size = path.stat().st_size
    digest = sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_BYTES))
        file.seek(max(0, size - _HASHED_BYTES))
        digest.update(file.read())
    return digest.hexdigest()[:12]
