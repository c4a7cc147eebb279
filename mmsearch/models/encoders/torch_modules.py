"""Halves of dual encoders as modules that can be exported. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


class ImageModule(torch.nn.Module):
    """An image encoder from pixels, (n, h, w, 3) uint8, to rows (n, dim), float32, of length 1.

    ``encode``: the method of ``model`` that makes features of normalised pixels (n, 3, h, w).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, model: Any, encode: Callable[[torch.Tensor], Any], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.model, self._encode = model, encode
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, h, w, 3) to (n, dim)."""
        x = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
        return unit_rows(self._encode((x - self.mean) / self.std))


class TransformersText(torch.nn.Module):
    """A text encoder of transformers, from ids (n, length) int64, maybe with their mask, to rows (n, dim)."""

    end_id = None

    def __init__(self, model: Any, *, cuts: bool, reads_class_token: bool) -> None:
        super().__init__()
        self.model, self.cuts, self._reads_class_token = model, cuts, reads_class_token

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(n, length) to (n, dim)."""
        inputs = {"input_ids": ids, **({} if mask is None else {"attention_mask": mask})}
        if self._reads_class_token:  # several versions of transformers look for a pooled output that there is not
            first = self.model.text_model(**inputs).last_hidden_state[:, 0]
            return unit_rows(self.model.text_projection(first))
        return unit_rows(self.model.get_text_features(**inputs))


def unit_rows(features: Any) -> torch.Tensor:
    """(n, dim) float32 of length 1; from transformers 5 on, features come in an object."""
    pooled = features if torch.is_tensor(features) else features.pooler_output
    return torch.nn.functional.normalize(pooled.float(), dim=-1)
