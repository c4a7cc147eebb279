"""The `index` line: paths → walk → changed only → decode → encode → commit → report.

plan            what is on disk compared with what is known       archives, open_archives   tars of samples
reading         decode workers      bounded_queue    between them and the encoder
writing         batches, encodes, commits                         run                       the line itself
embeddings      vectors made elsewhere                            datasets                  folders of them
"""

from typing import TYPE_CHECKING

from mmsearch.core.lazy import lazily

if TYPE_CHECKING:
    from mmsearch.ingest.options import ImportOptions as ImportOptions
    from mmsearch.ingest.options import IngestOptions as IngestOptions
    from mmsearch.ingest.run import ingest as ingest
    from mmsearch.ingest.run import remove as remove

_HOMES = {
    "ImportOptions": "mmsearch.ingest.options",
    "IngestOptions": "mmsearch.ingest.options",
    "ingest": "mmsearch.ingest.run",
    "remove": "mmsearch.ingest.run",
}
__all__ = [*_HOMES]
__getattr__ = lazily(__name__, _HOMES)
