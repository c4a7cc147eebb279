"""One index directory: where it lies, what it is made of, who may write to it.

manifest.json       format, the encoder that answers, recipe: written last at creation, replaced atomically
catalogue.sqlite    documents, segments, which rows of the vector files are committed, checksums of those
catalogue.closed    size and digest of the catalogue while nobody writes to it (`catalogue.closing`)
vectors-<key>.f16   the flat matrix of the encoder whose weights digest starts with <key>; one for each encoder
vectors-<key>.u8    the same vectors in bytes, which an exact search reads first; can be made again from the matrix
tokens-<key>-N.i8   image tokens of the reranker whose digest starts with <key>, where they are kept
writer.lock         held by the one process that writes
switch.lock         held by the one process that fills in another encoder beside the one that answers
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import (
    IndexBusy,
    IndexDamaged,
    IndexMissing,
    IndexTooNew,
    UsageError,
)
from mmsearch.core.system import sync_directory
from mmsearch.core.types import EncoderSpec
from mmsearch.sources import located
from mmsearch.store.base import check_encoder, same_encoder
from mmsearch.store.local.catalogue import Catalogue, Found, Root, Space
from mmsearch.store.local.catalogue.checksums import count, seal_file, seal_rows
from mmsearch.store.local.catalogue.closing import Closed, has_foreign_log, note_of
from mmsearch.store.local.catalogue.reranker_cache import forget_tokens, token_table
from mmsearch.store.local.files.codes import Codes
from mmsearch.store.local.files.tokens import TokenFile
from mmsearch.store.local.files.vectors import VectorFile
from mmsearch.store.local.shortage import shortages_said

FORMAT = 1
"""Of the directory's layout; raised when an older mmsearch could no longer read it."""
MANIFEST = "manifest.json"
CATALOGUE = "catalogue.sqlite"
BUSY_WAIT_S = 2.0
"""How long a writer waits for another one: longer than the single commits take with which an encoder is filled in."""


@dataclass(frozen=True)
class Manifest:
    """What an index says of itself. ``model`` is the name that opens the encoder again."""

    model: str
    encoder: EncoderSpec
    recipe: str = "exact"
    format: int = FORMAT
    vector_index: Mapping[str, Any] | None = None
    """What was built for faster search (`mmsearch.store.local.vectors.BuiltIndex`); ``None``: exact search."""
    is_sealed: bool = False
    """Whether it came with a digest of itself; those of older mmsearch do not."""
    is_damaged: bool = False
    """Whether it is not what was written: then it names no vector index, as nobody knows which one."""

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Reads and checks the manifest of an index directory."""
        path = directory / MANIFEST
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found = int(content["format"])
            if found > FORMAT:
                raise IndexTooNew(
                    f"the index {directory} has format {found}, this mmsearch knows formats up to {FORMAT}: "
                    "upgrade mmsearch to use it"
                )
            sealed = content.pop("digest", None)
            is_damaged = sealed is not None and sealed != _digest_of(content)
            encoder = EncoderSpec(**content["encoder"])
            built = content.get("vector_index")
            if built is not None and "tower" in built:  # what an older mmsearch called the embedding space
                built = {"space": built["tower"], **{name: value for name, value in built.items() if name != "tower"}}
            if is_damaged:
                return cls(content["model"], encoder, "exact", found, None, True, True)
            return cls(content["model"], encoder, content["recipe"], found, built, sealed is not None)
        except FileNotFoundError as error:
            if not _has_rows(directory):
                raise IndexMissing(
                    f"there is no index at {directory}: make one with `mmsearch index FOLDER`"
                ) from error
            return cls._from_catalogue(directory, error)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IsADirectoryError) as error:
            return cls._from_catalogue(directory, error)

    @classmethod
    def _from_catalogue(cls, directory: Path, error: Exception) -> Manifest:
        """What a manifest that cannot be read, or is gone, must have said: the catalogue knows the encoders too."""
        path = directory / MANIFEST
        if not (directory / CATALOGUE).exists():
            raise IndexDamaged(
                f"{path} cannot be read ({error}) and there is no catalogue beside it: restore the index from a copy, "
                "or remove it and index again"
            ) from error
        with contextlib.closing(Catalogue(directory / CATALOGUE, read_only=True)) as catalogue:
            spaces = [] if catalogue.is_old else catalogue.spaces()
        if len(spaces) != 1:
            raise IndexDamaged(
                f"{path} cannot be read ({error}), and the catalogue has vectors of {len(spaces)} encoders, of which "
                "nothing says which one is in use: restore manifest.json from a copy"
            ) from error
        return cls(spaces[0].spec.name, spaces[0].spec, is_sealed=True, is_damaged=True)

    def write(self, directory: Path) -> None:
        """Replaces the manifest atomically: a reader sees the old one or the new one."""
        draft = directory / (MANIFEST + ".new")
        with draft.open("w", encoding="utf-8") as file:
            content = {name: value for name, value in asdict(self).items() if not name.startswith("is_")}
            json.dump({**content, "digest": _digest_of(content)}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(directory / MANIFEST)
        sync_directory(directory)


class IndexDirectory:
    """An open index directory. Reading is for any number of threads and processes, writing for one process."""

    def __init__(self, path: Path, manifest: Manifest, catalogue: Catalogue) -> None:
        self.path = path
        self.manifest = manifest
        self.catalogue = catalogue
        self._written: tuple[int, int] | None = None
        self._root_paths: dict[tuple[str, bool], str | None] = {}

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Whether there is an index at ``path``, whole or damaged."""
        return (path / MANIFEST).exists() or _has_rows(path)

    @classmethod
    def open(cls, path: Path) -> IndexDirectory:
        """Opens an index for reading; one of an older mmsearch is brought up to date first, which needs to write.

        Raises:
            IndexMissing, IndexTooNew, IndexDamaged: with what to do.
            IndexBusy, UsageError: it is of an older mmsearch, and cannot be written to now.
        """
        manifest = Manifest.read(path)
        if not (path / CATALOGUE).exists():
            raise IndexDamaged(
                f"{path / CATALOGUE} is missing: restore the index from a copy, or remove it and index again"
            )
        if has_foreign_log(path / CATALOGUE) and os.access(path, os.W_OK):
            with contextlib.suppress(IndexBusy), _writer_lock(path, 0):
                found = Closed.take(path / CATALOGUE)
                if found is not None:
                    found.leave(path / CATALOGUE)
        with shortages_said(path):
            catalogue = Catalogue(path / CATALOGUE, read_only=True)
        if catalogue.is_old:
            catalogue.close()
            with _writer_lock(path), shortages_said(path):
                _bring_up_to_date(path / CATALOGUE)
            catalogue = Catalogue(path / CATALOGUE, read_only=True)
        return cls(path, manifest, catalogue)

    @classmethod
    def create(cls, path: Path, model: str, encoder: EncoderSpec) -> None:
        """Makes an empty index for one encoder; the manifest comes last, so half an index is none.

        Raises:
            UsageError: ``path`` is a file, or a folder with other things in it.
        """
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file: give a folder for the index")
        ours = {CATALOGUE, f"{MANIFEST}.new", "writer.lock"}
        ours |= {f"{CATALOGUE}-{part}" for part in ("wal", "shm", "journal")}  # left by a crash in here
        ours |= {note_of(Path(CATALOGUE)).name}
        if path.is_dir() and (others := sorted({entry.name for entry in path.iterdir()} - ours)):
            raise UsageError(
                f"{path} is no index and holds other files ({', '.join(others[:3])}…): "
                "give a new or empty folder for the index"
            )
        with shortages_said(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _writer_lock(path), shortages_said(path):
            if cls.exists(path):
                return
            catalogue = Catalogue(path / CATALOGUE, read_only=False)
            with catalogue.transaction():
                if not catalogue.spaces():
                    catalogue.add_space(encoder, f"vectors-{encoder.key}.f16")
            space = catalogue.spaces()[0]
            catalogue.close()
            check_encoder(str(path), space.spec, encoder)
            Manifest(model, encoder).write(path)
            keep_private(path)

    @contextlib.contextmanager
    def writing(
        self, *, cut: bool = True, encoder: EncoderSpec | None = None, wait_s: float = BUSY_WAIT_S
    ) -> Iterator[IndexDirectory]:
        """The same index opened for writing, as the only writer; what a crash left uncommitted is cut off.

        Without ``cut`` the vector files stay as they are, for whoever wants to see or mend them. ``encoder``: whose
        vectors will be written as those that answer; another process may have switched to another one. ``wait_s``:
        seconds to wait for another writer (-1: for as long as it takes).

        Raises:
            IndexBusy: another process writes to it.
            IndexDamaged: a vector file is shorter than the catalogue says.
            EncoderMismatch: another encoder answers.
            ResourceShortage: the disk is full, say.
        """
        with _writer_lock(self.path, wait_s), shortages_said(self.path):
            writer = IndexDirectory(
                self.path, Manifest.read(self.path), Catalogue(self.path / CATALOGUE, read_only=False)
            )
            try:
                if encoder is not None:
                    writer.check_encoder(encoder)
                for space in writer.catalogue.spaces() if cut else ():
                    VectorFile(self.path / space.file, space.spec.dim).cut(space.row_count)
                if cut:
                    writer.settle_tokens()
                    writer.seal()
                yield writer
            finally:
                writer.close()
                keep_private(self.path)

    def seal(self) -> None:
        """Writes down the checksums that an older mmsearch did not, of everything."""
        catalogue, built = self.catalogue, self.manifest.vector_index
        catalogue.seal()
        table = token_table(catalogue)
        with catalogue.transaction():
            if table is not None:
                seal_rows(catalogue.sql, TokenFile(self.path / table.file, table.shape), table.row_count)
            for name in () if built is None else (built["file"], built["recipe_file"]):
                if not count(catalogue.sql, name) and (self.path / name).exists():
                    seal_file(catalogue.sql, self.path / name)
        if not self.manifest.is_sealed:
            self.with_manifest()

    def settle_tokens(self, bad: Sequence[int] = ()) -> None:
        """Cuts tokens that were never committed, and forgets committed ones that are not there, or are ``bad``."""
        table = token_table(self.catalogue)
        if table is None:
            return
        file = TokenFile(self.path / table.file, table.shape)
        if file.rows_on_disk() < table.row_count or len(bad):
            with self.catalogue.transaction():
                forget_tokens(self.catalogue, table, file.rows_on_disk(), bad)
        file.cut(min(file.rows_on_disk(), table.row_count))

    def state(self) -> tuple[Any, ...]:
        """Changes whenever what a search depends on has changed: committed vectors, and the manifest.

        Reads the manifest again when another process has replaced it.
        """
        written = self.refresh()
        space = self.space()
        return (*self.catalogue.state(space.id), space.file, written)

    def refresh(self) -> tuple[int, int]:
        """Reads the manifest again when it was replaced; returns what tells one manifest from the next.

        Raises:
            IndexMissing: the index was removed, or another one was put in its place.
        """
        try:
            found = (self.path / MANIFEST).stat()
            written = (found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            written = (0, 0)
        if written != self._written:
            self.catalogue.check_is_in_place()
            self.reread()
            self._written = written
        return written

    def reread(self) -> None:
        """Reads the manifest again."""
        self.manifest = Manifest.read(self.path)

    def close(self) -> None:
        """Closes the catalogue."""
        self.catalogue.close()

    def space(self) -> Space:
        """The space that answers queries: that of the manifest's encoder."""
        for _ in range(3):
            space = self.space_of(self.manifest.encoder)
            if space is not None:
                return space
            self.reread()  # another process may have switched to another encoder and dropped this one
        raise IndexDamaged(
            f"the catalogue of {self.path} has no vectors of {self.manifest.encoder.describe()}, which its "
            "manifest names: restore the index from a copy, or remove it and index again"
        )

    def space_of(self, spec: EncoderSpec) -> Space | None:
        """The space of an encoder, whether or not it answers; ``None`` where the index has no vectors of it."""
        return next((space for space in self.catalogue.spaces() if same_encoder(space.spec, spec)), None)

    def vector_file(self, space: Space) -> VectorFile:
        """The file that holds the vectors of a space."""
        return VectorFile(self.path / space.file, space.spec.dim)

    def matrix(self, space: Space) -> npt.NDArray[np.float16]:
        """All committed rows of a space, mapped: (rows, dim) float16."""
        return self.vector_file(space).map(space.row_count)

    def codes(self, space: Space) -> Codes | None:
        """The codes of a space's vectors, mapped, as far as there are any (`mmsearch.store.local.files.codes`)."""
        return self.vector_file(space).codes.map(space.row_count)

    def background_file(self, space: Space) -> Path:
        """Where the calibration of a space lies, a cache: see `mmsearch.store.base.Store.calibration`."""
        return self.path / f"background-{space.spec.key}.npz"

    def check_encoder(self, spec: EncoderSpec) -> None:
        """Refuses an encoder other than the one that answers.

        Raises:
            EncoderMismatch: naming both.
        """
        check_encoder(str(self.path), self.manifest.encoder, spec)

    def root_path(self, root: Root) -> Path:
        """Where a root lies now."""
        return Path(os.path.normpath(self.path / root.path)) if root.is_relative else located(root.path)

    def path_of(self, found: Found) -> str:
        """Where the document of a search result lies now; of an imported one, the path or address as it was given."""
        return self.place(found.root, found.root_is_relative, found.path)

    def place(self, root_path: str, is_relative: bool, path: str) -> str:
        """Where what lies at ``path`` of a root lies now; in a dataset, the path or address as it was given."""
        key = (root_path, is_relative)
        if key not in self._root_paths:
            root = Root(0, *key)
            self._root_paths[key] = None if root.is_dataset else str(self.root_path(root)).rstrip("/")
        folder = self._root_paths[key]
        return path if folder is None else f"{folder}/{path}"

    def root_for(self, folder: Path) -> tuple[str, bool]:
        """How the catalogue names a root.

        An index that lies in the folder it describes, or beside it, names it relative to itself, so that both
        can be moved or copied together. Any other root is named absolutely.
        """
        home = self.path.parent
        if folder == home or home in folder.parents or folder in self.path.parents:
            return Path(os.path.relpath(folder, self.path)).as_posix(), True
        return str(folder), False

    def size_bytes(self) -> int:
        """Bytes on disk of everything in the directory."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def with_manifest(self, **changes: Any) -> None:
        """Replaces fields of the manifest, on disk and here."""
        self.manifest = replace(self.manifest, is_sealed=True, is_damaged=False, **changes)
        self.manifest.write(self.path)


def _has_rows(path: Path) -> bool:
    """Whether there is more than a crash at the creation of an index leaves: a catalogue, and vectors."""
    return (path / CATALOGUE).exists() and any(path.glob("vectors-*.f16"))


def keep_private(path: Path) -> None:
    """Of a folder that only its owner may enter, as indexes are made, lets nobody else read the files either: they hold
    paths, captions and what was read in pictures. A folder that its owner has opened to others stays as it is.
    """
    with contextlib.suppress(OSError):
        if os.name != "posix" or path.stat().st_mode & 0o077:
            return
        with os.scandir(path) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISREG(mode) and mode & 0o077:
                    os.chmod(entry.path, stat.S_IMODE(mode) & 0o700)  # noqa: PTH101  (as fast as can be)


def _digest_of(content: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _bring_up_to_date(path: Path) -> None:
    with contextlib.closing(Catalogue(path, read_only=False)) as catalogue, catalogue.transaction():
        for space in catalogue.spaces():
            catalogue.renew_blocks(space)


@contextlib.contextmanager
def switching(index: IndexDirectory) -> Iterator[None]:
    """Makes the calling process the only one that fills in another encoder; others may still write between its commits.

    Raises:
        IndexBusy: another process does.
    """
    with _lock(index.path, "switch.lock", 0, f"another process is changing the model of the index {index.path}"):
        yield


def _writer_lock(path: Path, wait_s: float = BUSY_WAIT_S) -> contextlib.AbstractContextManager[None]:
    return _lock(path, "writer.lock", wait_s, f"another process is writing to the index {path}")


@contextlib.contextmanager
def _lock(path: Path, name: str, wait_s: float, busy: str) -> Iterator[None]:
    lock = filelock.FileLock(path / name)
    try:
        lock.acquire(timeout=wait_s)
    except filelock.Timeout as error:
        raise IndexBusy(f"{busy}: wait until it has finished") from error
    except OSError as error:
        if not path.exists():
            raise IndexMissing(f"there is no index at {path} any more: it was removed or moved") from error
        raise UsageError(f"the index {path} cannot be written to: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
