"""How to index, and how to take in embeddings made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmsearch.core.options import Options, option
from mmsearch.sources.base import WalkRules

if TYPE_CHECKING:
    from mmsearch.media.base import DecodeOptions
    from mmsearch.media.ocr import TextReader
    from mmsearch.models.encoders.base import Encoder
    from mmsearch.models.sounds.base import SoundEncoder
    from mmsearch.models.speech.base import SpeechRecogniser

MENDING = 1
"""Raised when readers learn to read files that they refused before: those are tried again then."""


@dataclass(frozen=True)
class IngestOptions(Options):
    """How to index. ``readers`` is the number of decode threads (``None``: one for each core).

    ``memory_mb``: megabytes that decoded inputs may take while they wait for the encoder, and as many again for
    samples of archives that wait for a reader. Besides, each reader holds one picture at a time (up to
    ``max_megapixels``, at three bytes a pixel, twice while colours are converted; of a JPEG only the reduced one) or
    one member of an archive, and the encoder a batch.

    ``engine``: Ray reads and encodes new files, this process commits: `mmsearch.pipeline.ray`. ``readers`` is then the
    number of its processes.

    ``ocr``: read the text in pictures and video frames, after everything else; `True` with the reader of the extra
    ``mmsearch[ocr]``, or with a reader of your own.

    ``speech``: recognise what is said in videos and recordings without subtitles, after everything else; `True` with
    the model that was pulled last, or the name of one, or a recogniser of your own.

    ``sounds``: let what sounds in videos and recordings be found too, after everything else; `True` with the encoder
    of sounds that the index has, else with `mmsearch.models.sounds.SUGGESTED_SOUNDS`, or the name of one, or one of
    your own.

    ``keep_tokens`` names a reranker whose image tokens are kept with the index from now on, also of what is in it
    already (``None``: as before). A reranked query then opens no picture.

    ``forget_missing``: what is not there any more is dropped even where the whole place vanished
    (`mmsearch.pipeline.vanished`), and so is what is absent since earlier runs.
    """

    rules: WalkRules = field(default_factory=WalkRules)
    max_megapixels: float = option(89.0, "Refuse larger images.", flag="--max-megapixels", above=0)
    frame_interval_s: float = option(
        2.0, "Seconds between two looks at a video, at most; another value reads videos again.",
        flag="--frame-interval", above=0,
    )  # fmt: skip
    readers: int | None = option(None, "Threads that read files; by default one for each core.", least=1)
    memory_mb: float = option(
        256.0, "Megabytes that decoded files may take while they wait for the encoder.", flag="--memory", above=0
    )
    engine: str | None = option(
        None,
        "Where files are read and encoded: ray (several processes here), or the address of a Ray cluster, "
        "ray://HEAD:10001; by default threads of this process.",
        flag="--engine", metavar="ENGINE",
    )  # fmt: skip
    ocr: bool | TextReader = False
    speech: bool | str | SpeechRecogniser = False
    sounds: bool | str | SoundEncoder = False
    keep_tokens: str | None = None
    forget_missing: bool = option(
        False, "Drop what is not there, also where a whole disk or folder vanished.", flag="--forget-missing"
    )

    def kept(self) -> dict[str, Any]:
        """What decides which files are indexed and how, as plain values; `from_kept` reads them."""
        return {
            "hidden": self.rules.hidden,
            "exclude": list(self.rules.exclude),
            "max_megapixels": self.max_megapixels,
            "frame_interval_s": self.frame_interval_s,
            "ocr": bool(self.ocr),
        }

    @classmethod
    def from_kept(cls, values: Mapping[str, Any]) -> IngestOptions:
        """The options that a part of an index was last brought up to date with."""
        from mmsearch.media.ocr import has_text_reader

        rules = WalkRules(bool(values.get("hidden", False)), tuple(values.get("exclude", ())))
        rest: dict[str, Any] = {
            name: float(values[name]) for name in ("max_megapixels", "frame_interval_s") if name in values
        }
        return cls(rules=rules, **rest, ocr=bool(values.get("ocr")) and has_text_reader())

    def recogniser(self) -> SpeechRecogniser | None:
        """What recognises speech, opened; ``None`` where nothing is to.

        Raises:
            UsageError: the extra is not installed.
            EncoderError: the model is not on this machine, or cannot be opened.
        """
        if isinstance(self.speech, (bool, str)):
            from mmsearch.models.speech import open_recogniser

            return open_recogniser(None if self.speech is True else self.speech) if self.speech else None
        return self.speech

    def sound_encoder(self, known: str | None) -> SoundEncoder | None:
        """The encoder of sounds, opened; ``None`` where none is wanted. ``known``: the one that the index has.

        Raises:
            EncoderError: it is not on this machine, or cannot be opened.
        """
        if isinstance(self.sounds, (bool, str)):
            from mmsearch.models.sounds import SUGGESTED_SOUNDS, open_sound_encoder

            name = (known or SUGGESTED_SOUNDS) if self.sounds is True else self.sounds
            return open_sound_encoder(name) if name else None
        return self.sounds

    @property
    def limits(self) -> str:
        """Names what decides which files are refused: the settings, and how much the readers put up with."""
        return f" max-megapixels={self.max_megapixels:g} mending/{MENDING}"

    def decode_options(self, encoder: Encoder) -> DecodeOptions:
        """What the decoders must know, of these options and of the encoder."""
        from mmsearch.media.base import DecodeOptions

        return DecodeOptions(
            min_side=encoder.input_size,
            max_megapixels=self.max_megapixels,
            frame_interval_s=self.frame_interval_s,
            max_tokens=encoder.max_text_tokens,
            count_tokens=encoder.count_tokens,
        )


@dataclass(frozen=True)
class ImportOptions(Options):
    """``captions``: the vectors of captions become the texts of a dataset ``NAME/captions``."""

    name: str | None = option(None, "What to call the dataset; by default as the folder.", flag="--name")
    path_column: str | None = option(
        None, "Column that says where the pictures lie; by default url or image_path.", flag="--path-column"
    )
    normalize: bool = option(False, "Bring vectors to length 1 that are not.", flag="--normalize")
    captions: bool = option(
        True, "Take the vectors of captions (text_emb) too, as texts.", flag="--captions/--no-captions"
    )
