"""The `index` line: paths → walk → changed only → decode → encode → commit → report.

plan            what is on disk compared with what is known       archives, open_archives   tars of samples
reading         decode workers      bounded_queue    between them and the encoder
writing         batches, encodes, commits                         run                       the line itself
embeddings      vectors made elsewhere                            datasets                  folders of them
"""

from mmsearch.ingest.run import IngestOptions, ingest, remove

__all__ = ["IngestOptions", "ingest", "remove"]
