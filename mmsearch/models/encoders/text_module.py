"""The text encoders of open_clip models as torch modules from tokens to rows of length 1.

Importing this module imports torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmsearch.models.encoders.tokenizer import TokenArray, end_positions


class TextModule(torch.nn.Module):
    """Any text encoder, run over its whole context: ids (n, context), int64, to rows (n, dim), float32."""

    cuts = False
    """Whether rows may be cut after the longest text of a batch."""
    end_id: int | None = None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids (n, context) to rows (n, dim)."""
        return torch.nn.functional.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def lengths(self, tokens: TokenArray) -> npt.NDArray[np.int64]:
        """How many leading ids of each row decide its vector."""
        return np.full(len(tokens), tokens.shape[1], dtype=np.int64)


class CausalTextModule(TextModule):
    """A transformer in which no token sees a later one, and whose vector is read at the end of the text.

    What follows the end changes nothing, so rows may be as short as the longest text of the batch: a query of
    five words then costs a tenth of the full context of 77. open_clip's own ``encode_text`` insists on the
    full length; this is the same computation with the position table and the mask cut to the length given.
    """

    cuts = True

    def __init__(self, model: Any, parts: Any, pool: str, end_id: int) -> None:
        super().__init__(model)
        self.parts = parts
        self.end_id = end_id if pool == "eos" else None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids (n, length), length up to the context, to rows (n, dim)."""
        parts = self.parts
        length = tokens.shape[1]
        dtype = parts.positional_embedding.dtype
        x = parts.token_embedding(tokens).to(dtype) + parts.positional_embedding[:length]
        x = parts.ln_final(parts.transformer(x, attn_mask=parts.attn_mask[:length, :length].to(dtype)))
        at = tokens.argmax(dim=-1) if self.end_id is None else (tokens == self.end_id).int().argmax(dim=-1)
        x = x[torch.arange(x.shape[0], device=x.device), at]
        projection = parts.text_projection
        if isinstance(projection, torch.nn.Linear):
            x = projection(x)
        elif projection is not None:
            x = x @ projection
        return torch.nn.functional.normalize(x.float(), dim=-1)

    def lengths(self, tokens: TokenArray) -> npt.NDArray[np.int64]:
        """Up to and with the end of the text."""
        return end_positions(tokens, self.end_id) + 1


def text_module(model: Any) -> TextModule:
    """The text encoder of ``model``, in the form that can be cut where that is the same computation."""
    parts = getattr(model, "text", model)
    pool = getattr(parts, "pool_type", None) or getattr(parts, "text_pool_type", None)
    needed = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    causal = getattr(parts, "attn_mask", None) is not None and all(hasattr(parts, name) for name in needed)
    if not causal or pool not in ("argmax", "eos") or getattr(parts, "cls_emb", None) is not None:
        return TextModule(model)
    end_id = getattr(parts, "eos_id", None) or getattr(parts, "text_eos_id", None) or 2
    return CausalTextModule(model, parts, pool, int(end_id))
