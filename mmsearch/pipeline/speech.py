"""What is said in videos and recordings, as passages with times and vectors: from subtitles, else from a recogniser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.core.errors import MediaError, UsageError
from mmsearch.core.types import MediaInfo, Progress, Skip
from mmsearch.media.base import DecodeOptions
from mmsearch.media.sound.passages import Cue, spoken_passages
from mmsearch.media.sound.subtitles import read_subtitles
from mmsearch.models.encoders.base import Encoder
from mmsearch.models.speech.base import RATE, Samples
from mmsearch.pipeline.compute import Recognition, TextVectors
from mmsearch.pipeline.fill import Rows
from mmsearch.pipeline.plan import Scope, Work
from mmsearch.pipeline.reading import Finished, Message, Piece, Reader, Seconds
from mmsearch.pipeline.stored_contents import OfContents, OptionsOf
from mmsearch.sources.base import SUBTITLES
from mmsearch.store.local.catalogue.coverage import Lacking, PendingContent
from mmsearch.store.local.catalogue.speech import HeardContent, SpokenPassage, lacking_speech, lacking_subtitles
from mmsearch.store.local.commit import Batch, Committed, ContentKey
from mmsearch.store.local.directory import IndexDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmsearch.models.speech.base import SpeechRecogniser


@dataclass(frozen=True)
class Found:
    """Subtitles of a file: ``source`` names them, empty where there are none; ``problem``: what could not be read."""

    source: str
    problem: str | None


class OfSpeech(OfContents):
    """What is said in videos and recordings of some scopes. It comes after everything is embedded, as reading the text
    in pictures does: all can be searched meanwhile, and an index that was made without it is completed.
    """

    trusts_times = True
    """Who listens to a long video need not read all of it once more to know that it is the same."""
    is_recognised = False

    def __init__(self, index: IndexDirectory, encoder: Encoder, scopes: Sequence[Scope], options: OptionsOf) -> None:
        super().__init__(index, index.space().id, _nothing, options)
        self._encoder = encoder
        self._scopes = [(scope.root.id, scope.below) for scope in scopes if not scope.root.is_dataset]
        self._total = self.lacking().count(index.catalogue)
        self._done = 0
        self._about: Any = None
        self.heard = 0
        """Files in which something is said, and whose passages are committed."""
        self.unheard: list[Skip] = []

    def finish(self, item: Finished, rows: Rows) -> None:
        """See `Artefact.finish`."""
        self._about = item.about
        super().finish(item, rows)

    def failed(self, content: PendingContent, reason: str, *, lasting: bool) -> None:
        """See `OfContents.failed`."""
        if lasting:
            self._keep(content, self._source(""), [], reason)

    def _source(self, source: str) -> str:
        return source

    def _keep(
        self, content: PendingContent, source: str, passages: Sequence[SpokenPassage], problem: str | None,
        vectors: Any = None,
    ) -> None:  # fmt: skip
        vectors = np.zeros((0, self._encoder.spec.dim), np.float32) if vectors is None or not len(vectors) else vectors
        self._next.heard.append((HeardContent(content.id, source, self.is_recognised, passages, problem), vectors))
        place = content.places[0]
        path = str(Path(self._index.root_path(place.root)) / place.path)
        if problem is not None:
            self.unheard.append(Skip(path, problem))
        self._done += 1
        self.news.append(Progress("listen", self._done, self._total, len(self.unheard), path))

    def committed(self, batch: Batch, done: Committed) -> None:
        """See `Artefact.committed`."""
        self.heard += sum(bool(heard.passages) for heard, _ in batch.heard)
        super().committed(batch, done)


class Subtitles(OfSpeech):
    """Passages of the subtitles that lie beside a file or in it. Files that were looked through before are opened again
    only where their subtitles have changed.
    """

    def __init__(self, index: IndexDirectory, encoder: Encoder, scopes: Sequence[Scope], options: OptionsOf) -> None:
        super().__init__(index, encoder, scopes, options)
        self.functions = {"text": TextVectors(encoder, batch_size=256)}

    def lacking(self) -> Lacking:
        """See `OfContents.lacking`."""
        return lacking_subtitles(self._scopes)

    def reader(self, options: DecodeOptions) -> Reader:
        """See `OfContents.reader`."""
        return SubtitleReader(self._prepare, options)

    def made(self, content: PendingContent, rows: Rows) -> str | None:
        """See `OfContents.made`."""
        found: Found = self._about
        vectors = np.stack([row["vector"] for _, row in rows]) if rows else None
        self._keep(content, found.source, [piece.about for piece, _ in rows], found.problem, vectors)
        return None


class RecognisedSpeech(OfSpeech):
    """What ``recogniser`` hears in files that have no subtitles. A file is heard whole or not at all: one in which a
    run was interrupted is heard again from its beginning.
    """

    is_recognised = True
    commit_rows = 1

    def __init__(
        self, index: IndexDirectory, encoder: Encoder, recogniser: SpeechRecogniser, scopes: Sequence[Scope],
        options: OptionsOf,
    ) -> None:  # fmt: skip
        self._recogniser = recogniser
        super().__init__(index, encoder, scopes, options)
        self.functions = {"sound": Recognition(recogniser)}

    def lacking(self) -> Lacking:
        """See `OfContents.lacking`."""
        return lacking_speech(self._recogniser.name, self._scopes)

    def reader(self, options: DecodeOptions) -> Reader:
        """See `OfContents.reader`."""
        return SoundReader(self._prepare, options, self._recogniser)

    def _source(self, source: str) -> str:
        return self._recogniser.name

    def made(self, content: PendingContent, rows: Rows) -> str | None:
        """See `OfContents.made`."""
        problem = next((row["problem"] for _, row in rows if row["problem"] is not None), None)
        cues = [cue for _, row in rows for cue in row["cues"]]
        encoder = self._encoder
        passages = passages_of(cues, encoder.max_text_tokens, encoder.count_tokens)
        vectors = encoder.encode_texts([one.text for one in passages]) if passages else None
        self._keep(content, self._recogniser.name, passages, problem, vectors)
        return None


def passages_of(cues: Sequence[Cue], max_tokens: int, count_tokens: Callable[[str], int]) -> list[SpokenPassage]:
    """The passages of what was said, with the times of their words where these are known."""
    return [SpokenPassage(*cue) for cue in spoken_passages(cues, max_tokens, count_tokens)]


class SubtitleReader(Reader):
    """Reads the subtitles of an item: those that lie beside it, and the tracks inside of it."""

    def _decode(
        self, item: ContentKey, work: Work, data: bytes | None, stopped: Callable[[], bool], spent: Seconds
    ) -> Iterator[Message]:
        with spent.of("decode"):
            found, tracks = subtitles_of_work(work, data)
            limits = self.options.max_tokens, self.options.count_tokens
            passages = [one for track in tracks for one in passages_of(track, *limits)]
        for number, one in enumerate(passages):
            yield Piece(item, number, "text", one.text, one.start_s, one.end_s, one.text, about=one)
        yield Finished(item, len(passages), MediaInfo(), work, about=found)


def subtitles_of_work(work: Work, data: bytes | None = None) -> tuple[Found, list[list[Cue]]]:
    """Where the subtitles of a file are, and their cues, a list for each track."""
    from mmsearch.media.sound.containers import embedded_subtitles

    sources: list[str] = []
    problems: list[str] = []
    tracks: list[list[Cue]] = []
    for name in sidecar_names(work.file.sidecars):
        try:
            tracks.append(read_subtitles(work.path.with_name(name)))
            sources.append(name)
        except MediaError as error:
            problems.append(f"{name}: {error}")
    try:
        embedded = embedded_subtitles(work.path, data)
    except MediaError:
        if not tracks:
            raise
        embedded = []
    if embedded:
        sources.append("embedded")
        tracks += [track for number, track in enumerate(embedded) if track not in embedded[:number]]
    return Found("/".join(sources), "; ".join(problems) or None), tracks


def sidecar_names(sidecars: str) -> list[str]:
    """The names of the subtitles among the sidecars of a file (`mmsearch.sources.FileEntry`)."""
    names = [stamp.rsplit(":", 2)[0] for stamp in sidecars.split("/") if stamp]
    return [name for name in names if name.lower().endswith(SUBTITLES)]


@dataclass(frozen=True)
class SoundReader(Reader):
    """Reads the parts of an item in which somebody speaks; of an hour of sound it holds a minute."""

    recogniser: SpeechRecogniser | None = None

    def _decode(
        self, item: ContentKey, work: Work, data: bytes | None, stopped: Callable[[], bool], spent: Seconds
    ) -> Iterator[Message]:
        from mmsearch.media.sound.containers import has_sound, opened_container, sound_of

        assert self.recogniser is not None
        with opened_container(work.path, data) as container:
            is_silent = not has_sound(container)
        number = 0
        parts = iter(()) if is_silent else self.recogniser.voiced(sound_of(work.path, data))
        while True:
            with spent.of("decode"):
                part = next(parts, None)
            if part is None:
                break
            if stopped():
                return
            yield Piece(item, number, "sound", part, part.spans[0][1], part.spans[-1][1] + part.spans[-1][2])
            number += 1
        yield Finished(item, number, MediaInfo(), work)


def recognised(path: Path, recogniser: SpeechRecogniser, max_tokens: int = 64) -> list[Cue]:
    """What a recogniser hears in a file, as passages with times.

    Raises:
        MediaError: it cannot be read, or there is no sound in it.
    """
    from mmsearch.media.sound.containers import sound_of

    hear = Recognition(recogniser)
    cues: list[Cue] = []
    for part in recogniser.voiced(sound_of(path)):
        [row] = hear([part])
        if row["problem"] is not None:
            raise MediaError(row["problem"])
        cues += row["cues"]
    return list(spoken_passages(cues, max_tokens, lambda text: len(text.split())))


def question_of(blocks: Iterable[Samples], recogniser: SpeechRecogniser) -> str:
    """The words of a question that was spoken, without the full stop that recognisers add; empty: nobody speaks."""
    parts = (recogniser.recognise(part.samples).cues for part in recogniser.voiced(blocks))
    text = " ".join(" ".join(cue.text for cues in parts for cue in cues).split())
    return text.rstrip(".。").strip()


def recorded(seconds: float) -> Samples:
    """What the microphone hears, for so long.

    Raises:
        UsageError: there is no library that records, or no microphone.
    """
    import importlib

    try:
        device: Any = importlib.import_module("sounddevice")
        samples = device.rec(int(seconds * RATE), samplerate=RATE, channels=1, dtype="float32", blocking=True)
    except ImportError as error:
        raise UsageError("recording needs the library sounddevice: pip install sounddevice, or give a file") from error
    except Exception as error:  # of the library's own kind, also where there is no library of the system
        raise UsageError(f"nothing can be recorded: {error}") from error
    heard: Samples = samples.reshape(-1)
    return heard


def _nothing(image: Any) -> Any:
    return image
