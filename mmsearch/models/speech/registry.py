"""Which recogniser of speech a name means.

whisper-NAME      a Whisper model that was pulled: tiny, base, small, medium, large-v3, large-v3-turbo, distil-… (.en)
a directory       one in the format of CTranslate2 (config.json, model.bin, tokenizer.json)
module:Class      a `SpeechRecogniser` of the user's own
NAME              what an installed package brings as an entry point NAME in ``mmsearch.speech``
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmsearch.core.errors import EncoderError, ModelMissing, UsageError
from mmsearch.core.extras import install_hint
from mmsearch.core.home import home
from mmsearch.core.registry import Registry
from mmsearch.models.encoders.weights import hub_cache_dir, hub_snapshot
from mmsearch.models.own_classes import import_class, is_class_name, make
from mmsearch.models.speech.base import SpeechRecogniser

_SIZES = ("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en", "large-v1", "large-v2",
          "large-v3")  # fmt: skip
SPEECH_MODELS = {
    **{f"whisper-{size}": f"Systran/faster-whisper-{size}" for size in _SIZES},
    "whisper-large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    **{
        f"whisper-distil-{size}": f"Systran/faster-distil-whisper-{size}"
        for size in ("small.en", "medium.en", "large-v2", "large-v3")
    },
}
"""Names of Whisper models, and the repositories that `mmsearch models pull` fetches them from."""
FILES = ("config.json", "model.bin", "tokenizer.json", "preprocessor_config.json", "vocabulary.json", "vocabulary.txt")
"""Of a model in the format of CTranslate2, as far as it has them."""
RECOGNISERS: Registry[type[SpeechRecogniser]] = Registry("mmsearch.speech", "recogniser of speech")
_DEFAULT_FILE = "default-speech-model.txt"


def has_recogniser() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("faster_whisper") is not None


def canonical_speech_name(name: str) -> str:
    """``base`` and ``distil-large-v3`` are spelled in full; everything else stays as it is."""
    return f"whisper-{name}" if f"whisper-{name}" in SPEECH_MODELS else name


def is_speech_model(name: str) -> bool:
    """Whether it is the name of one that `mmsearch models pull` fetches."""
    return name in SPEECH_MODELS


def open_recogniser(name: str | None = None, *, device: str = "auto", threads: int | None = None) -> SpeechRecogniser:
    """Opens a recogniser; never reaches the network. ``None``: the one that was pulled last, else any that is here.

    Raises:
        UsageError: the extra is not installed.
        ModelMissing: the model is not on this machine; the message says how to fetch it.
        EncoderError: there is no such recogniser, or it cannot be loaded.
    """
    chosen = canonical_speech_name(name or default_speech_model())
    if Path(chosen).expanduser().is_dir():
        return _whisper(Path(chosen).expanduser().resolve(), Path(chosen).resolve().name, device, threads)
    if chosen in SPEECH_MODELS:
        if not has_recogniser():
            raise UsageError(f"recognising speech needs an extra that is not installed: {install_hint('speech')}")
        folder = hub_snapshot(SPEECH_MODELS[chosen])
        if folder is None or not (folder / "model.bin").is_file():
            raise ModelMissing(
                f"the speech model {chosen} is not on this machine; fetch it with: mmsearch models pull {chosen}"
            )
        return _whisper(folder, chosen, device, threads)
    brought = RECOGNISERS.find(chosen)
    if brought is None and not is_class_name(chosen):
        raise EncoderError(
            f"there is no recogniser of speech {chosen}: expected one of {', '.join(SPEECH_MODELS)}, a directory that "
            "holds one in the format of CTranslate2, or module:Class"
        )
    class_: Callable[..., SpeechRecogniser] = brought or import_class(chosen, SpeechRecogniser)
    recogniser: SpeechRecogniser = make(class_, chosen, device=device, threads=threads)  # type: ignore[arg-type]
    return recogniser


def _whisper(folder: Path, name: str, device: str, threads: int | None) -> SpeechRecogniser:
    if not has_recogniser():
        raise UsageError(f"recognising speech needs an extra that is not installed: {install_hint('speech')}")
    lacking = [file for file in ("config.json", "model.bin") if not (folder / file).is_file()]
    if lacking:
        raise EncoderError(
            f"{folder} holds no speech model in the format of CTranslate2: it lacks {' and '.join(lacking)}"
        )
    from mmsearch.models.speech.whisper import WhisperRecogniser

    return WhisperRecogniser(folder, name, device=device, threads=threads)


def pull_speech_model(name: str, progress: Callable[[Any], None] | None = None) -> None:
    """Fetches a model of `SPEECH_MODELS` into the Hugging Face cache, and lets it be the default.

    Raises:
        HubUnreachable: the hub does not answer within a few seconds, or the connection broke.
    """
    from mmsearch.models.encoders.pull import pull_files

    pull_files(name, SPEECH_MODELS[name], FILES, progress)
    set_default_speech_model(name)


def default_speech_model() -> str:
    """The one that was pulled last, else the first that is on this machine, else ``whisper-base``."""
    try:
        chosen = (home() / _DEFAULT_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        chosen = ""
    if chosen:
        return chosen
    if hub_cache_dir().is_dir():
        for name, repository in SPEECH_MODELS.items():
            folder = hub_snapshot(repository)
            if folder is not None and (folder / "model.bin").is_file():
                return name
    return "whisper-base"


def can_listen() -> bool:
    """Whether the recogniser that ``None`` stands for can be opened, as far as can be told without doing it."""
    name = default_speech_model()
    if name not in SPEECH_MODELS:
        return True
    folder = hub_snapshot(SPEECH_MODELS[name]) if has_recogniser() else None
    return folder is not None and (folder / "model.bin").is_file()


def set_default_speech_model(name: str) -> None:
    """Lets ``--speech`` use this model where none is named."""
    home().mkdir(parents=True, exist_ok=True)
    (home() / _DEFAULT_FILE).write_text(name + "\n", encoding="utf-8")
