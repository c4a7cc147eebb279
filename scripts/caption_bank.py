"""Makes `query/calibrate/caption_bank.npz` anew: run it when the captions or the built-in weights have changed."""

from __future__ import annotations

import numpy as np

from mmsearch.models.encoders import open_encoder
from mmsearch.query.calibrate.caption_bank import SHIPPED, captions_digest, generic_captions

if __name__ == "__main__":
    encoder, captions = open_encoder("builtin"), generic_captions()
    names = {"encoder": np.array(encoder.spec.digest), "captions": np.array(captions_digest(captions))}
    vectors = encoder.encode_texts(captions).astype(np.float16)
    np.savez(SHIPPED, allow_pickle=False, vectors=vectors, **names)
