"""What is on disk: walking folders, what is ignored, and the identity of a file.

base      what a walk gives and what it leaves out      walking   the walk itself
ignoring  patterns of what is passed over               contents  bytes and their hash
sidecars  which files are about which others
"""

from mmsearch.sources.base import ARCHIVE_SUFFIX, FileEntry, Unreadable, WalkRules
from mmsearch.sources.contents import content_hash, hash_of, read_sample, read_whole
from mmsearch.sources.ignoring import IGNORE_FILE
from mmsearch.sources.sidecars import SUFFIXES as SIDECAR_SUFFIXES
from mmsearch.sources.sidecars import names_in
from mmsearch.sources.walking import (
    ALWAYS_IGNORED,
    ALWAYS_IGNORED_PATTERNS,
    MAX_SIDECAR_BYTES,
    FolderSeen,
    is_left_out,
    walk,
)

__all__ = [
    "ALWAYS_IGNORED", "ALWAYS_IGNORED_PATTERNS", "ARCHIVE_SUFFIX", "IGNORE_FILE", "MAX_SIDECAR_BYTES",
    "SIDECAR_SUFFIXES", "FileEntry", "FolderSeen", "Unreadable", "WalkRules", "content_hash", "hash_of", "is_left_out",
    "names_in", "read_sample", "read_whole", "walk",
]  # fmt: skip
