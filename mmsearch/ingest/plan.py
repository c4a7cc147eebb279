"""What a run of indexing has to do: the files on disk compared with the catalogue, before anything is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmsearch.catalogue import KnownDocument, Root
from mmsearch.decoders import decoder_for
from mmsearch.decoders.base import DecodeOptions, Decoder
from mmsearch.errors import UsageError
from mmsearch.files import FileEntry, Unreadable, WalkRules, walk
from mmsearch.index import IndexDirectory
from mmsearch.types import Skip


@dataclass(frozen=True)
class Scope:
    """A part of the disk that a run looks at: all of ``root`` at or below the relative path ``below``."""

    root: Root
    folder: Path
    below: str


@dataclass(frozen=True)
class Work:
    """A file that is new or may have changed, so it must be read."""

    scope: Scope
    file: FileEntry
    decoder: Decoder
    decoding: str
    previous: KnownDocument | None

    @property
    def path(self) -> Path:
        """Where the file lies now."""
        return self.scope.folder / self.file.path


@dataclass
class Plan:
    """What the walk found. ``gone`` are documents (id, root id, path) whose files were not met."""

    work: list[Work] = field(default_factory=list)
    unchanged: int = 0
    skipped: list[Skip] = field(default_factory=list)
    gone: list[tuple[int, int, str]] = field(default_factory=list)
    forgotten: list[tuple[int, str]] = field(default_factory=list)
    """Files skipped earlier, as (root id, path), that were not met."""


def resolve_scopes(index: IndexDirectory, paths: Sequence[Path]) -> list[Scope]:
    """Turns what the user named into scopes; new roots are registered, roots inside a new one become part of it.

    Raises:
        UsageError: a path does not exist.
    """
    wanted = _outermost([_existing(path) for path in paths])
    return [_scope(index, path) for path in wanted]


def _existing(path: Path) -> Path:
    path = path.expanduser()
    real = os.path.realpath(path)
    shown = os.fsencode(real).decode("utf-8", "backslashreplace")
    if not os.path.exists(real):  # noqa: PTH110  (Path.exists raises where it may not look)
        raise UsageError(f"there is no file or folder {shown}, or it lies where you may not look: check the spelling")
    if shown != real:
        raise UsageError(f"the path {shown} is not valid UTF-8: rename the folder or file to index it")
    return Path(real)


def _outermost(paths: Sequence[Path]) -> list[Path]:
    unique = list(dict.fromkeys(paths))
    return [path for path in unique if not any(other in path.parents for other in unique)]


def _scope(index: IndexDirectory, path: Path) -> Scope:
    for root in index.catalogue.roots():
        folder = index.root_path(root)
        if path == folder or folder in path.parents:
            below = path.relative_to(folder).as_posix()
            return Scope(root, folder, "" if below == "." else below)
    folder = path if path.is_dir() else path.parent
    with index.catalogue.transaction():
        name, is_relative = index.root_for(folder)
        inner = [root for root in index.catalogue.roots() if folder in index.root_path(root).parents]
        root = index.catalogue.add_root(name, is_relative=is_relative)
        for old in inner:
            prefix = index.root_path(old).relative_to(folder).as_posix()
            index.catalogue.absorb_root(old.id, root.id, prefix)
    return Scope(root, folder, "" if path == folder else path.name)


def make_plan(
    index: IndexDirectory,
    scopes: Sequence[Scope],
    rules: WalkRules,
    options: DecodeOptions,
    seen: Callable[[int], None],
) -> Plan:
    """Walks every scope and sorts what it meets; ``seen`` is called with the number of files met so far."""
    plan = Plan()
    files = 0
    for scope in scopes:
        for met, known in _side_by_side(index, scope, rules, plan):
            if met is not None:
                files += 1
                _sort(met, known, scope, options, plan, index)
                if files % 500 == 0:
                    seen(files)
    seen(files)
    return plan


def _side_by_side(
    index: IndexDirectory, scope: Scope, rules: WalkRules, plan: Plan
) -> Iterator[tuple[FileEntry | None, KnownDocument | None]]:
    """Pairs files with the documents known of them, one pass over both, as both come in the same order.

    Documents below a folder that could not be read are neither met nor gone: nothing is known of them now.
    """
    known = index.catalogue.documents_below(scope.root.id, scope.below)
    document = next(known, None)
    unknowable: list[str] = []
    not_met: list[KnownDocument] = []
    for met in walk(scope.folder, rules, scope.below):
        while document is not None and document.path < met.path:
            not_met.append(document)
            document = next(known, None)
        if isinstance(met, Unreadable):
            plan.skipped.append(Skip(str(scope.folder / met.path), met.reason))
            unknowable.append(met.path + "/" if met.is_directory and met.path else met.path)
            continue
        if document is not None and document.path == met.path:
            yield met, document
            document = next(known, None)
        else:
            yield met, None
    not_met.extend(rest for rest in [document] if rest is not None)
    not_met.extend(known)
    for lost in not_met:
        if not any(lost.path.startswith(prefix) for prefix in unknowable):
            plan.gone.append((lost.id, scope.root.id, lost.path))


def _sort(
    met: FileEntry,
    known: KnownDocument | None,
    scope: Scope,
    options: DecodeOptions,
    plan: Plan,
    index: IndexDirectory,
) -> None:
    decoder = decoder_for(Path(met.path))
    if decoder is None:
        suffix = Path(met.path).suffix
        reason = f"files of type {suffix} are not supported" if suffix else "it has no file suffix"
        plan.skipped.append(Skip(str(scope.folder / met.path), reason))
        if known is not None:
            plan.gone.append((known.id, scope.root.id, known.path))
        return
    decoding = decoder.signature(options)
    if known is not None and (known.size, known.mtime_ns, known.decoding) == (
        met.size,
        met.mtime_ns,
        decoding,
    ):
        plan.unchanged += 1
        return
    plan.work.append(Work(scope, met, decoder, decoding, known))


def settle_skipped(index: IndexDirectory, scopes: Sequence[Scope], plan: Plan, limits: str) -> None:
    """Takes files out of the work that were unreadable last time and have not changed a bit since.

    ``limits`` stands for the settings that decide what is refused; the reasons of last time hold only for them.
    """
    for scope in scopes:
        remembered = index.catalogue.skipped_below(scope.root.id, scope.below)
        if not remembered:
            continue
        keep: list[Work] = []
        for work in plan.work:
            old = remembered.pop(work.file.path, None) if work.scope is scope else None
            if old is not None and old[:4] == [*work.file[1:], work.decoding + limits]:
                plan.skipped.append(Skip(str(work.path), old[4]))
            else:
                keep.append(work)
        plan.work = keep
        plan.forgotten.extend((scope.root.id, path) for path in remembered if not (scope.folder / path).exists())
