"""The `index` line: what is new or has changed on disk → the pipeline → what is gone is dropped → report.

run             folders and archives      embeddings      vectors made elsewhere      datasets      folders of them
"""

from mmsearch.ingest.run import IngestOptions, ingest, remove

__all__ = ["IngestOptions", "ingest", "remove"]
