"""What each patch of an image adds to its score, for the vision transformers of open_clip.

An image's vector is put together from its patches in the attention of the token that becomes it. What such a layer adds
is a sum over patches, Σᵢ Σₕ aₕᵢ·Wₒₕ·(Wᵥₕ·LN(xᵢ) + bᵥₕ), so each patch has its share; the last norm, divided by the
length that it had, and the projection are linear, so each share has a score with a query. The scores of the last
``LAYERS`` layers, which carry nearly all that a patch adds directly, are summed (Gandelsman et al., 2024, "Interpreting
CLIP's Image Representation via Text-Based Decomposition", https://arxiv.org/abs/2310.05916, section 3). Where an
attention pool or a mean makes the vector instead of a class token, the shares are those in the pool, or in the mean.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = 4
"""The last layers of an image encoder with a class token whose shares are summed."""


def patch_scores(visual: Any, pixels: Tensor, vector: Tensor) -> Tensor | None:
    """What each patch adds to the inner product of an image's vector with ``vector``, up to a factor and a constant.

    ``pixels`` (1, 3, height, width) as the encoder takes them, ``vector`` (dim,) float32 on the same device. Gives
    float32 (rows, columns) of patches; ``None`` for encoders that are built otherwise (ResNet, timm, other pools).
    """
    if not is_supported(visual):
        return None
    blocks = list(visual.transformer.resblocks)[-LAYERS:]
    batch_first = getattr(visual.transformer, "batch_first", True)
    inputs: list[Tensor] = []
    after: list[Tensor] = []
    with ExitStack() as hooks:
        for block in blocks:
            handle = block.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
            hooks.callback(handle.remove)
        handle = visual.transformer.register_forward_hook(lambda _, __, made: after.append(made))
        hooks.callback(handle.remove)
        visual(pixels)
    if not batch_first:
        inputs = [one.transpose(0, 1) for one in inputs]
    last = after[0][0].float()  # (tokens, width), the class token first
    if visual.attn_pool is not None:
        pool = visual.attn_pool
        memory = _norm(pool.ln_k, last)
        shares = attention_shares(pool.attn, _norm(pool.ln_q, pool.query[:1].float()), memory)
        pooled = shares.sum(0) + pool.attn.out_proj.bias.float()
        parts = _through_norm(visual.ln_post, shares, pooled)
    elif visual.pool_type == "avg":
        if visual.final_ln_after_pool:
            parts = _through_norm(visual.ln_post, last, last[1:].mean(0))
        else:
            parts = _norm(visual.ln_post, last)
    else:
        shares = torch.zeros_like(last)
        for block, given in zip(blocks, inputs, strict=True):
            tokens = _norm(block.ln_1, given[0].float())
            added = attention_shares(block.attn, tokens[:1], tokens)
            shares = shares + block.ls_1(added.to(given.dtype)).float()
        parts = _through_norm(visual.ln_post, shares, last[0])
    projected = parts if visual.proj is None else parts @ visual.proj.float()
    rows, columns = (side // patch for side, patch in zip(pixels.shape[2:], _pair(visual.patch_size), strict=True))
    return (projected[1:] @ vector).reshape(rows, columns)


def is_supported(visual: Any) -> bool:
    """Whether `patch_scores` knows how an image encoder makes its vector."""
    try:
        from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
    except ImportError:
        return False
    if not isinstance(visual, VisionTransformer) or visual.pool_type not in ("tok", "avg"):
        return False
    if visual.attn_pool is not None:
        is_simple = getattr(visual, "attn_pool_contrastive", None) is None and visual.pool_type == "tok"
        return is_simple and isinstance(visual.attn_pool.attn, nn.MultiheadAttention)
    return all(
        type(block) is ResidualAttentionBlock and isinstance(block.attn, nn.MultiheadAttention)
        for block in visual.transformer.resblocks
    )


def attention_shares(attention: nn.MultiheadAttention, query: Tensor, memory: Tensor) -> Tensor:
    """What each of ``memory`` (n, channels) adds to the output of one ``query`` (1, width): (n, width).

    Their sum is the output but for the bias of the last projection.
    """
    width, heads = attention.embed_dim, attention.num_heads
    if attention.in_proj_weight is not None:
        weights = attention.in_proj_weight.float().chunk(3)
    else:
        given = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        weights = tuple(one.float() for one in given)
    bias = attention.in_proj_bias
    biases = (0.0, 0.0, 0.0) if bias is None else bias.float().chunk(3)
    asked, keys, values = (
        (x @ weight.T + add).reshape(len(x), heads, width // heads)
        for x, weight, add in zip((query, memory, memory), weights, biases, strict=True)
    )
    attended = torch.einsum("qhd,nhd->hn", asked, keys).mul((width // heads) ** -0.5).softmax(-1)
    weighted = (attended.T[:, :, None] * values).reshape(len(memory), width)
    return weighted @ attention.out_proj.weight.float().T


def _through_norm(norm: Any, shares: Tensor, whole: Tensor) -> Tensor:
    """Shares (n, width) of ``whole`` (width,), which is normalised: what each adds to the result, but for the bias."""
    if not isinstance(norm, nn.LayerNorm):
        return shares
    length = (whole.var(unbiased=False) + norm.eps).sqrt()
    return (shares - shares.mean(-1, keepdim=True)) / length * norm.weight.float()


def _norm(norm: Any, x: Tensor) -> Tensor:
    """A layer norm in float32, whatever its weights are."""
    if not isinstance(norm, nn.LayerNorm):
        return x
    bias = None if norm.bias is None else norm.bias.float()
    return nn.functional.layer_norm(x, norm.normalized_shape, norm.weight.float(), bias, norm.eps)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
