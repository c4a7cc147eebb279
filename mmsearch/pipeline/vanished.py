"""Which documents were deleted, and which only vanished with the place where they lie: a disk that is not mounted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from mmsearch.pipeline.plan import Plan, archive_of, lies_there
from mmsearch.sources import WalkRules, is_left_out, is_remote
from mmsearch.store.local.catalogue import FolderIdentity, Root
from mmsearch.store.local.directory import IndexDirectory

LARGE = 10
"""So many documents, if they are more than half of what a root or a folder in it held, are too many to believe."""
_63_BITS = (1 << 63) - 1
Gone = tuple[int, int, str]
"""A document: its id, its root's id, its path."""
Rule = Callable[["Place"], bool]


class Level(Enum):
    """Where a folder lies: a root (or what a run was told to index, which is one then), just below a root, deeper."""

    ROOT = "root"
    TOP = "top"
    BELOW = "below"


@dataclass(frozen=True)
class Place:
    """A folder of which the listing is complete and in which ``gone`` of the ``held`` documents were not met.

    ``before``: which folder lay there when files were last met in it, if that is known. ``now``: which one lies there
    now; ``None`` where there is none. ``is_empty``: nothing lies in it, not even what would not count.
    """

    level: Level
    held: int
    gone: int
    before: FolderIdentity | None
    now: FolderIdentity | None
    is_empty: bool = False


def has_vanished(place: Place) -> bool:
    """Whether what is gone from a place vanished with it, rather than being deleted: `is_lost` or `is_too_much`.

    Taking a deletion for an absence costs some space and a line in a report. Taking an absence for a deletion costs
    the encoding of a whole disk. So the rules lean to absence, but single deletions, and folders deleted from a folder
    that is listed and there, stay what they are.
    """
    return is_lost(place) or is_too_much(place)


def is_lost(place: Place) -> bool:
    """Whether the place itself is not the one that held the documents.

    1. A root that is not there at all has vanished: nothing says that its files are gone.
    2. A folder on which something was mounted, and nothing is now, has lost its mount. That holds whatever lies there
       now, and also where the mount point went away with the disk (``/media/me/STICK``).
    3. Any other folder that is not there was deleted: the folder above it is listed, and judged itself.
    4. A root that is empty: so looks the mount point of a disk that failed to mount, and few delete all they have.
    5. Another folder at the same place (see `is_another`) that lacks more than half of what the old one held: a mount
       that does not show as one, another disk, a folder that was moved away. An empty one is the plainest case. The
       same folder with its files deleted is the same inode, so it is not meant here.
    6. Where an older mmsearch did not write down which folder it was, an empty one counts as another.
    """
    before, now = place.before, place.now
    if not place.gone:
        return False
    if place.level is Level.ROOT and (now is None or place.is_empty):
        return True
    if before is not None and before.is_mount and not (now is not None and now.is_mount):
        return True
    if now is None:
        return False
    if before is None:
        return place.is_empty
    return is_another(before, now) and 2 * place.gone > place.held


def is_too_much(place: Place) -> bool:
    """Whether so much is gone that nobody should believe it: more than half of a root or of a folder just below it, and
    at least `LARGE` documents. A synchronisation that went wrong looks like that, or a second disk below the first.

    Deeper folders are left to their owners: an album of three hundred photos that goes is a decision.
    """
    if place.level is Level.BELOW or place.now is None:
        return False
    return place.gone >= LARGE and 2 * place.gone > place.held


def is_another(before: FolderIdentity, now: FolderIdentity) -> bool:
    """Whether another folder lies at a place than before. The number of a device alone tells nothing: it may change
    when the machine starts.
    """
    return before.inode != now.inode or (before.device != now.device and before.is_mount != now.is_mount)


@dataclass
class Verdicts:
    """``deleted`` documents, ``vanished`` ones, and how many of these at each place (the deepest that vanished)."""

    deleted: list[Gone] = field(default_factory=list)
    vanished: list[Gone] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)


def judge(
    index: IndexDirectory, gone: Iterable[Gone], named: Iterable[tuple[int, str]], plan: Plan, rules: WalkRules
) -> Verdicts:
    """Sorts documents that were not met where listings were complete. What an ignore rule leaves out by now still lies
    there, and somebody wanted it left out: it counts as deleted. What lies there otherwise came back while the run went
    on (a disk that was mounted just now): nothing is said of it, the next run meets it.

    What lies in a lost place does not count where the shares of the others are judged: besides a disk that is away,
    single files may have been deleted. ``named``: (root id, path) of what somebody wants to have indexed. ``plan`` and
    ``rules``: those of the run; documents that came in since its beginning do not count as held.
    """
    judging = _Judging(index, set(named), plan.last_id)
    verdicts, missing = Verdicts(), list[Gone]()
    for one in gone:
        if not judging.lies_there(one):
            missing.append(one)
        elif judging.was_passed_over(one, plan, rules):
            verdicts.deleted.append(one)
    for rule in (is_lost, is_too_much):
        judging.count(missing)
        rest = []
        for one in missing:
            place = judging.place_that(rule, one)
            if place is None:
                rest.append(one)
            else:
                verdicts.vanished.append(one)
                verdicts.places[str(place)] += 1
        missing = rest
    verdicts.deleted += missing
    return verdicts


def absent_at(
    index: IndexDirectory, absent: Iterable[Gone], looked_at: Iterable[tuple[int, str]], plan: Plan, rules: WalkRules
) -> Verdicts:
    """What was absent before a run and was not met again, by the part of the index that the run looked at.

    ``deleted`` are those that lie there all the same, and that an ignore rule leaves out by now; see `judge`.
    """
    folders = {root.id: index.root_path(root) for root in index.catalogue.roots()}
    parts = sorted(looked_at, key=lambda part: len(part[1]))
    verdicts = Verdicts()
    for one in absent:
        _, root_id, path = one
        if lies_there(folders[root_id], path) and was_passed_over(folders[root_id], one, plan, rules):
            verdicts.deleted.append(one)
            continue
        verdicts.vanished.append(one)
        part = next(below for root, below in parts if root == root_id and below in (path, "", *_above(path)))
        verdicts.places[str(folders[root_id] / part)] += 1
    return verdicts


def was_passed_over(folder: Path, document: Gone, plan: Plan, rules: WalkRules) -> bool:
    """Whether a document that lies there was not met because the run passed over it: its folder was listed, or is left
    out itself. Otherwise the folder was not there when the run came by.
    """
    _, root_id, path = document
    above = (archive_of(path) or path).rpartition("/")[0]
    return above in plan.listed.get(root_id, ()) or is_left_out(folder, rules, path)


class _Judging:
    """The places of one run, looked at once each."""

    def __init__(self, index: IndexDirectory, named: set[tuple[int, str]], last_id: int) -> None:
        self._catalogue = index.catalogue
        self._roots: dict[int, Root] = {root.id: root for root in index.catalogue.roots()}
        self._folders = {root.id: index.root_path(root) for root in self._roots.values()}
        self._before = {root_id: index.catalogue.folders_below(root_id) for root_id in self._roots}
        self._named, self._last_id = named, last_id
        self._gone: Counter[tuple[int, str]] = Counter()
        self._lost: Counter[tuple[int, str]] = Counter()
        self._looks: dict[tuple[int, str], tuple[FolderIdentity | None, bool] | None] = {}
        self._verdicts: dict[tuple[Rule, int, str], bool] = {}

    def lies_there(self, document: Gone) -> bool:
        _, root_id, path = document
        return lies_there(self._folders[root_id], path)

    def was_passed_over(self, document: Gone, plan: Plan, rules: WalkRules) -> bool:
        return was_passed_over(self._folders[document[1]], document, plan, rules)

    def count(self, missing: Sequence[Gone]) -> None:
        """These are the ones in question from now on; what was before and is not now, is lost."""
        self._lost = self._gone
        self._gone = Counter((root_id, above) for _, root_id, path in missing for above in _above(path))
        self._lost.subtract(self._gone)

    def place_that(self, rule: Rule, document: Gone) -> Path | None:
        """The deepest folder around a document for which a rule holds."""
        _, root_id, path = document
        found = None
        for above in _above(path):
            key = (rule, root_id, above)
            if key not in self._verdicts:
                self._verdicts[key] = self._judge(rule, root_id, above)
            found = above if self._verdicts[key] else found
        return None if found is None else self._folders[root_id] / found

    def _judge(self, rule: Rule, root_id: int, path: str) -> bool:
        key = (root_id, path)
        if key not in self._looks:
            try:
                self._looks[key] = look_at(self._folders[root_id] / path)
            except OSError:
                self._looks[key] = None
        look = self._looks[key]
        if look is None:
            return True  # it is there, and cannot be looked at
        level = Level.ROOT if not path or key in self._named else Level.BELOW if "/" in path else Level.TOP
        gone, before = self._gone[key], self._before[root_id].get(path)
        held = gone
        if look[0] is not None and (before is not None or level is not Level.BELOW):
            held = self._catalogue.count_present(root_id, path, self._last_id) - max(0, self._lost[key])
        return rule(Place(level, held, gone, before, *look))


def look_at(folder: Path) -> tuple[FolderIdentity | None, bool]:
    """Which folder lies at a path (``None``: there is none), and whether it is empty.

    Raises:
        OSError: it is there, and cannot be listed.
    """
    if is_remote(folder):
        return (FolderIdentity(0, 0, False), False) if folder.is_dir() else (None, False)
    try:
        found = folder.stat()
        with os.scandir(folder) as entries:
            is_empty = next(entries, None) is None
        above = (folder / "..").stat()
    except (FileNotFoundError, NotADirectoryError):
        return None, False
    device = found.st_dev & _63_BITS
    return FolderIdentity(device, found.st_ino & _63_BITS, device != above.st_dev & _63_BITS), is_empty


def _above(path: str) -> Iterator[str]:
    """The folders that a path lies in, from the root (``''``) down."""
    yield ""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
