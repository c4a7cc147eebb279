"""Makes `query/calibrate/caption_bank.npz` anew: run it when the captions or the built-in weights have changed."""

from __future__ import annotations

from mmsearch.models.encoders import open_encoder
from mmsearch.query.calibrate.caption_bank import generic_captions, write_bank_vectors

if __name__ == "__main__":
    write_bank_vectors(open_encoder("builtin"), generic_captions())
