"""Makes `mmsearch/search/bank_vectors.npz` anew: run it when the captions or the built-in weights have changed."""

from __future__ import annotations

from mmsearch.encoders import open_encoder
from mmsearch.search.background import generic_captions
from mmsearch.search.bank_vectors import write_bank_vectors

if __name__ == "__main__":
    write_bank_vectors(open_encoder("builtin"), generic_captions())
