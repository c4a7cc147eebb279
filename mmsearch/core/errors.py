"""Every error that mmsearch raises on purpose.

    MmsearchError
    ├── UsageError            what was asked makes no sense: arguments, paths, a query
    │   └── QueryError        a query that breaks the query language (in mmsearch.query.language)
    ├── IndexDirectoryError   the index directory
    │   ├── IndexMissing      there is none at that place
    │   ├── IndexBusy         another process is writing to it
    │   ├── IndexDamaged      its parts do not fit together
    │   ├── ResourceShortage  a disk is full, memory or descriptors are short: it passes
    │   ├── IndexTooNew       written by a newer mmsearch
    │   └── EncoderMismatch   made by another encoder than the one given
    ├── EncoderError          an encoder cannot be opened or run
    │   ├── ModelMissing      its weights are not on this machine
    │   └── HubUnreachable    its weights cannot be fetched now
    ├── VectorError           vectors of the wrong shape, type or length
    ├── RecipeError           a recipe that cannot be read or used
    └── MediaError            a file that cannot be read; indexing turns it into a skip with its reason

Messages say what was found, what was expected and what to do. Errors of libraries below are turned into one
of these where they appear, with the original as ``__cause__``.
"""

from __future__ import annotations


class MmsearchError(Exception):
    """The one base class: catching it catches everything that mmsearch raises on purpose."""


class UsageError(MmsearchError):
    """What was asked makes no sense: arguments, paths, a query."""


class IndexDirectoryError(MmsearchError):
    """Something is wrong with an index directory."""


class IndexMissing(IndexDirectoryError):  # noqa: N818
    """There is no index at that place."""


class IndexBusy(IndexDirectoryError):  # noqa: N818
    """Another process is writing to the index."""


class IndexDamaged(IndexDirectoryError):  # noqa: N818
    """The parts of the index do not fit together."""


class ResourceShortage(IndexDirectoryError):  # noqa: N818
    """A disk is full, memory or descriptors are short, a disk does not answer: nobody's fault, and it passes."""


class IndexTooNew(IndexDirectoryError):  # noqa: N818
    """The index was written by a newer mmsearch."""


class StoreUnreachable(IndexDirectoryError):  # noqa: N818
    """The server of a store cannot be reached, or refuses what was asked of it."""


class EncoderMismatch(IndexDirectoryError):  # noqa: N818
    """The index was made by another encoder than the one given."""


class EncoderError(MmsearchError):
    """An encoder cannot be opened or run."""


class ModelMissing(EncoderError):  # noqa: N818
    """The weights of a model are not on this machine."""


class HubUnreachable(EncoderError):  # noqa: N818
    """The weights of a model cannot be fetched now."""


class VectorError(MmsearchError):
    """Vectors of the wrong shape, type or length."""


class RecipeError(MmsearchError):
    """A recipe that cannot be read or used."""


class MediaError(MmsearchError):
    """A file that cannot be read. Its message is the reason shown for the skipped file."""
