"""Filters: what a document must be like to be found.

A filter says yes or no to every document. Where nobody knows (a photo without coordinates, and ``near:``) it says no;
a negated filter says yes to exactly the documents to which the plain one says no, so also to those. Filters given
together must all say yes. Both sides of a text comparison are brought to Unicode form NFC, because file systems differ
in how they spell an accent.

tree    what filters say, as an expression tree over the fields of a document; its evaluation in Python
keys    the table of keys (``type:``, ``after:`` …), each with how its value becomes a tree
base    the contract of a key
paths   patterns of paths
places  where a place is, by its name

A store renders the tree in its own way: `mmsearch.store.local.where` to SQL.
"""

from mmsearch.filters.base import BadValueError, FilterKey, Held, Value
from mmsearch.filters.keys import KEYS, filter_help
from mmsearch.filters.tree import (
    And,
    Compare,
    Contains,
    Glob,
    Not,
    OneOf,
    Or,
    Phrase,
    Range,
    Spoken,
    Where,
    Within,
    holds,
)

__all__ = [
    "KEYS",
    "And",
    "BadValueError",
    "Compare",
    "Contains",
    "FilterKey",
    "Glob",
    "Held",
    "Not",
    "OneOf",
    "Or",
    "Phrase",
    "Range",
    "Spoken",
    "Value",
    "Where",
    "Within",
    "filter_help",
    "holds",
]
