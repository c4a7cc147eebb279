"""What is exported once of a model on torch, so that later processes need none: where it lies, whether it is whole.

    CACHE/text_encoders/DIGEST-FINGERPRINT/    tower.onnx  tower.onnx.data  tokenizer.json  tower.json
    CACHE/image_encoders/DIGEST-FINGERPRINT/   image.onnx  image.onnx.data  image.json

The name of a directory follows from the weights on disk and from how they are used, so that the export of other weights
is never found. The description (``.json``) carries the encoder's identity and the digest of each file; a directory
appears whole or not at all, and one that does not fit its description any more is made again. Nothing here imports
torch.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from mmsearch.core.errors import EncoderError
from mmsearch.models.encoders.weights import cache_dir, file_digest, read_json, write_json

LOWEST_COSINE = 0.9999
"""Between a vector of an export and that of the model on torch."""
_PACKAGES = ("torch", "open_clip_torch", "transformers", "onnxscript", "onnxruntime")
_log = logging.getLogger(__name__)


class ModelFiles(Protocol):
    """A model that is whole on this machine. ``fingerprint`` changes when the same weights are used in another way."""

    @property
    def name(self) -> str:
        """As the index keeps it."""

    @property
    def directory(self) -> Path | None:
        """The folder of its weights, where it is the model's own."""

    @property
    def digest(self) -> str:
        """Of the weights."""

    @property
    def fingerprint(self) -> str:
        """As the class says."""


@dataclass(frozen=True)
class Exports:
    """All exports of one kind: ``what`` is its name for people, ``description`` that of the JSON file in each."""

    folder: str
    description: str
    what: str
    format: int = 1

    def directory(self, model: ModelFiles) -> Path:
        """Where the export of a model lies, or would lie."""
        return cache_dir() / self.folder / f"{model.digest[:24]}-{model.fingerprint[:8]}"

    def find(self, model: ModelFiles) -> dict[str, Any] | None:
        """The description of a model's export; ``None`` where there is none, or it is not whole."""
        directory = self.directory(model)
        content = read_json(directory / self.description)
        try:
            fits = content.get("format") == self.format and content["spec"]["digest"] == model.digest
            whole = fits and all(file_digest(directory / name) == sha for name, sha in content.get("files", {}).items())
        except (OSError, KeyError, TypeError, AttributeError):
            return None
        if fits and not whole:
            _log.warning("%s of %s in %s is damaged and is made again", self.what, model.name, directory)
        return content if whole else None

    def make(self, model: ModelFiles, write: Callable[[Path], dict[str, Any]]) -> Path | None:
        """Lets ``write`` fill a directory and return the description, unless the export is there; returns its place.

        ``None``, with a line in the log, where it cannot be made or kept: the model then goes on with torch.
        """
        directory = self.directory(model)
        if self.find(model) is not None:
            return directory
        failed = directory.with_name(directory.name + ".failed.json")
        versions = [*map(_version, _PACKAGES), f"format {self.format}"]
        if read_json(failed).get("versions") == versions:
            return None  # it would take as long, and fail, again at every query
        scratch: Path | None = None
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix="new-"))
            content = write(scratch)
            files = {path.name: file_digest(path) for path in sorted(scratch.iterdir())}
            write_json(scratch / self.description, {"format": self.format, **content, "files": files})
            shutil.rmtree(directory, ignore_errors=True)
            scratch.replace(directory)
        except Exception as error:
            if self.find(model) is not None:
                return directory  # another process was faster
            reason = " ".join(str(error).split())[:300]
            _log.warning("%s of %s cannot be exported, torch goes on: %s", self.what, model.name, reason)
            if not isinstance(error, OSError):  # a full disk may be empty tomorrow
                with contextlib.suppress(OSError):
                    write_json(failed, {"versions": versions, "reason": reason})
            return None
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
        for name in files:
            file_digest(directory / name)  # under its last path, so that the next process need not read it all
        return directory


def check_cosine(cosine: float, what: str) -> None:
    """Compares the lowest cosine of an export's rows and the model's with what is bearable.

    Raises:
        EncoderError: it is too low.
    """
    if not cosine >= LOWEST_COSINE:
        raise EncoderError(f"the exported {what} encoder differs from the original: cosine {cosine:.5f}")


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"
