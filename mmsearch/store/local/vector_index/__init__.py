"""Vector search: the nearest rows of a matrix of vectors. The only room that imports FAISS.

base      what every index speaks: Neighbours, checked queries, allowed rows
exact     every row is scored, straight from the mapped vector file
by_codes  which rows those may be that are the best, from codes of one byte a number
products  the same for many queries at once, from matrix products
code_products  these products with codes, in whole numbers
ann       an index built by a recipe proposes rows, the vector file scores them
ann_building  what building one takes: a sample, k-means, groups of near vectors, threads
ann_file  how such an index lies on disk
gpu       the same on a GPU, where FAISS sees one
tuning    search parameters for a recall target, measured on held-out queries
"""

from mmsearch.store.local.vector_index.ann import AnnIndex
from mmsearch.store.local.vector_index.base import Neighbours
from mmsearch.store.local.vector_index.exact import ExactIndex
from mmsearch.store.local.vector_index.gpu import GpuIndex, gpu_count, index_class, require_gpu
from mmsearch.store.local.vector_index.tuning import Latency, QueryKind, Tuned, tune

__all__ = [
    "AnnIndex",
    "ExactIndex",
    "GpuIndex",
    "Latency",
    "Neighbours",
    "QueryKind",
    "Tuned",
    "gpu_count",
    "index_class",
    "require_gpu",
    "tune",
]
