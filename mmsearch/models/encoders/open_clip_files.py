"""Which open_clip model a name means, and where its files lie on this machine.

Nothing here imports torch, open_clip or huggingface_hub (but for a name that only open_clip knows), and nothing
reaches the network: a query must be able to name the exact weights of its index in milliseconds.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.models.encoders.base import Encoder, EncoderFamily, EncoderOptions
from mmsearch.models.encoders.catalogue import ROWS
from mmsearch.models.encoders.registry import DIRECTORY_PREFIX, canonical_name
from mmsearch.models.encoders.weights import (
    add_to_json,
    cache_dir,
    file_digest,
    find_checkpoint,
    hub_file,
    hub_snapshot,
    missing,
    read_json,
)

if TYPE_CHECKING:
    from mmsearch.models.encoders.open_clip import OpenClipEncoder

HUB_PREFIX = "hf-hub:"
CONFIG_FILE = "open_clip_config.json"


@dataclass(frozen=True)
class LocalModel:
    """An open_clip model that is whole on this machine.

    ``directory`` holds ``open_clip_config.json`` and the checkpoint (``local-dir:`` and ``hf-hub:`` names);
    it is ``None`` for ``ARCHITECTURE/TAG`` names, whose configuration is inside open_clip.
    """

    name: str
    checkpoint: Path
    directory: Path | None = None
    architecture: str | None = None
    tag: str | None = None
    repo: str | None = None

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the checkpoint."""
        return file_digest(self.checkpoint)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the same weights would be used in another way: another name or configuration."""
        text = self.name
        if self.directory is not None:
            text += (self.directory / CONFIG_FILE).read_text(encoding="utf-8")
        return hashlib.sha256(text.encode()).hexdigest()


class OpenClipFamily(EncoderFamily):
    """``ARCHITECTURE/TAG``, ``hf-hub:ORG/NAME``, and directories in open_clip's format."""

    is_on_hub = True

    def canonical(self, name: str) -> str:
        """Tags are written in more than one way."""
        if name.startswith((HUB_PREFIX, DIRECTORY_PREFIX)):
            return name
        architecture, slash, tag = name.rpartition("/")
        return architecture + slash + tag.lower().replace("-", "_")

    def check(self, name: str) -> None:
        """See :meth:`EncoderFamily.check`."""
        locate(name)

    def open(self, name: str, options: EncoderOptions, *, texts_only: bool = False) -> Encoder:
        """See :meth:`EncoderFamily.open`. What was exported before needs no torch: see `exported`."""
        from mmsearch.models.encoders.exported import open_best

        local = locate(name)
        return open_best(local, options, lambda: _open_whole(local, options), texts_only=texts_only)


FAMILY = OpenClipFamily()


def _open_whole(local: LocalModel, options: EncoderOptions) -> OpenClipEncoder:
    from mmsearch.models.encoders.open_clip import OpenClipEncoder

    return OpenClipEncoder(local, options)


def locate(name: str) -> LocalModel:
    """Finds the files of an open_clip model on this machine, without the network.

    Raises:
        ModelMissing: the name is known, the weights are not here.
        EncoderError: nothing is known by that name.
    """
    name = canonical_name(name)
    if name.startswith(DIRECTORY_PREFIX):
        return _in_directory(name, Path(name.removeprefix(DIRECTORY_PREFIX)))
    if name.startswith(HUB_PREFIX):
        repo = name.removeprefix(HUB_PREFIX)
        snapshot = hub_snapshot(repo)
        checkpoint = find_checkpoint(snapshot) if snapshot else None
        if snapshot is None or checkpoint is None or not (snapshot / CONFIG_FILE).is_file():
            raise missing(name)
        return LocalModel(name, checkpoint, directory=snapshot, repo=repo)
    architecture, _, tag = name.rpartition("/")
    repo, filename = hub_place(name)
    checkpoint = first_hub_file(repo, checkpoint_candidates(filename))
    if checkpoint is None:
        raise missing(name)
    return LocalModel(name, checkpoint, architecture=architecture, tag=tag, repo=repo)


def hub_place(name: str) -> tuple[str, str]:
    """Repository and file name (empty: the usual ones) of ``ARCHITECTURE/TAG`` on the Hugging Face hub.

    Recommended models and those opened before are known at once; for others open_clip is loaded.

    Raises:
        EncoderError: open_clip does not know it; the message names similar and recommended ones.
    """
    row = next((row for row in ROWS if row.name == name and row.repo), None)
    if row is not None:
        return row.repo, row.filename
    place = recall_hub_place(name)
    if place is not None:
        return place
    if name.startswith(("/", ".", "~")):
        raise EncoderError(f"there is no directory {name}; give the path of a directory that holds a model")

    from mmsearch.models.encoders.open_clip import pretrained_places

    places = pretrained_places()
    if name not in places:
        raise EncoderError(_unknown(name, list(places)))
    remember_hub_place(name, *places[name])
    return places[name]


def checkpoint_candidates(filename: str) -> tuple[str, ...]:
    """The names under which a hub repository may hold weights, best first.

    ``filename`` is what open_clip's table of pretrained tags says; empty for its usual names.
    """
    if not filename:
        return ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return (re.sub(r"\.(bin|pth)$", ".safetensors", filename), filename)


def first_hub_file(repo: str, names: Sequence[str]) -> Path | None:
    """The first of ``names`` that the local cache has."""
    return next((path for name in names if (path := hub_file(repo, name))), None)


def remember_hub_place(name: str, repo: str, filename: str) -> None:
    """Keeps where an ``ARCHITECTURE/TAG`` lies on the hub: only open_clip knows, and it imports torch."""
    if recall_hub_place(name) != (repo, filename):
        add_to_json(cache_dir() / "hub_places.json", name, [repo, filename])


def recall_hub_place(name: str) -> tuple[str, str] | None:
    """What ``remember_hub_place`` kept: repository and file name."""
    entry = read_json(cache_dir() / "hub_places.json").get(name)
    return (str(entry[0]), str(entry[1])) if isinstance(entry, list) and len(entry) == 2 else None


def _in_directory(name: str, directory: Path) -> LocalModel:
    if not directory.is_dir():
        raise EncoderError(f"there is no directory {directory}; {name} must name one that holds a model")
    if not (directory / CONFIG_FILE).is_file():
        raise EncoderError(f"{directory} holds no {CONFIG_FILE}; expected a model saved in open_clip's format")
    checkpoint = find_checkpoint(directory)
    if checkpoint is None:
        raise ModelMissing(
            f"{directory} holds {CONFIG_FILE} but no weights; put open_clip_model.safetensors (or another"
            " .safetensors, .bin or .pth file) beside it"
        )
    return LocalModel(name, checkpoint, directory=directory)


def _unknown(name: str, known: list[str]) -> str:
    tags = [other for other in known if other.rpartition("/")[0] == name]
    lower = {other.lower(): other for other in known}
    close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=4, cutoff=0.5)]
    similar = tags[:6] or close
    message = f"there is no model {name!r}"
    if similar:
        message += f"; similar names: {', '.join(similar)}"
    recommended = ", ".join(row.name for row in ROWS[:5])
    return (
        f"{message}; recommended: {recommended} (all: mmsearch models). Also possible: hf-hub:ORG/NAME, hf:ORG/NAME,"
        " the path of a directory, and module:Class for an encoder of your own"
    )
