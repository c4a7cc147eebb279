"""The `index` line: what is new or has changed on disk → the pipeline → what is gone is dropped → report.

run             folders and archives      embeddings      vectors made elsewhere      datasets      folders of them
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
