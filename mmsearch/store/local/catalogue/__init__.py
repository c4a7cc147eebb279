"""The SQLite database of an index: which documents, contents, segments and vectors there are.

Its transaction is the commit point of indexing: a vector counts once its row stands here. Readers use one
connection a thread and see a consistent state (WAL), also while another process writes.
"""

from mmsearch.store.local.catalogue.absence import FolderIdentity
from mmsearch.store.local.catalogue.catalogue import Catalogue
from mmsearch.store.local.catalogue.row_owners import RowArray, RowOwners
from mmsearch.store.local.catalogue.rows import (
    Found,
    KeptScope,
    KnownDocument,
    NewContent,
    NewSegment,
    Root,
    Space,
)

__all__ = [
    "Catalogue",
    "FolderIdentity",
    "Found",
    "KeptScope",
    "KnownDocument",
    "NewContent",
    "NewSegment",
    "Root",
    "RowArray",
    "RowOwners",
    "Space",
]
