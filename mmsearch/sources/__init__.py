"""What is on disk, or in a store of objects: walking folders, what is ignored, and the identity of a file.

base      what a walk gives and what it leaves out      walking   the walk itself
ignoring  patterns of what is passed over               contents  bytes and their hash
sidecars  which files are about which others     remote    the same of s3://, gs://, az://, http(s)://
"""

from mmsearch.sources.base import ARCHIVE_SUFFIX, SUBTITLES, FileEntry, Unreadable, WalkRules
from mmsearch.sources.contents import content_hash, hash_of, read_sample, read_whole
from mmsearch.sources.ignoring import IGNORE_FILE
from mmsearch.sources.remote import RemotePath, fetched, is_remote, located
from mmsearch.sources.sidecars import CLIP_SUFFIXES, clip_stamp, names_in
from mmsearch.sources.sidecars import SUFFIXES as SIDECAR_SUFFIXES
from mmsearch.sources.walking import (
    ALWAYS_IGNORED,
    ALWAYS_IGNORED_PATTERNS,
    MAX_SIDECAR_BYTES,
    FolderSeen,
    is_left_out,
    subtitles_beside,
    walk,
)

__all__ = [
    "ALWAYS_IGNORED", "ALWAYS_IGNORED_PATTERNS", "ARCHIVE_SUFFIX", "CLIP_SUFFIXES", "IGNORE_FILE", "MAX_SIDECAR_BYTES",
    "SIDECAR_SUFFIXES", "SUBTITLES", "FileEntry", "FolderSeen", "RemotePath", "Unreadable", "WalkRules", "clip_stamp",
    "content_hash", "fetched", "hash_of", "is_left_out", "is_remote", "located", "names_in", "read_sample",
    "read_whole", "subtitles_beside", "walk",
]  # fmt: skip
