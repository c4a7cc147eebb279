"""The caption bank through the built-in text encoder, as shipped: encoding it would cost every new index a second.

`scripts/caption_bank.py` makes the file anew when the captions or the built-in weights change; until then the digests
in it do not fit and the captions are encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmsearch.core.arrays import read_npz
from mmsearch.models.encoders.base import Encoder
from mmsearch.models.encoders.views import reads_texts_as

SHIPPED = Path(__file__).parent / "caption_bank.npz"


@lru_cache(maxsize=1)
def generic_captions() -> tuple[str, ...]:
    """The caption bank: short descriptions of everyday pictures, written for this purpose."""
    return tuple((Path(__file__).parent / "captions.txt").read_text(encoding="utf-8").splitlines())


def captions_digest(captions: Sequence[str]) -> str:
    """Names the captions."""
    return sha256("\n".join(captions).encode()).hexdigest()


def bank_vectors(encoder: Encoder, captions: Sequence[str], shipped: Path = SHIPPED) -> npt.NDArray[np.float16]:
    """The vectors of the captions, float16 (captions, dim): those shipped if they are this encoder's, else encoded."""
    stored = read_npz(shipped, lambda name: reads_texts_as(encoder.spec.digest, name))
    if stored is not None and str(stored.get("captions")) == captions_digest(captions) and "vectors" in stored:
        return stored["vectors"]
    encoded: npt.NDArray[np.float16] = encoder.encode_texts(captions).astype(np.float16)
    return encoded
