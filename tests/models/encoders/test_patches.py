"""What patches add to a score: against open_clip's own outputs, and in encoders made so that one colour is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.models.encoders import open_encoder
from mmsearch.query.heat import GRID, heat_of
from tests.models.encoders.test_open_clip import CLIP, save_model

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

from mmsearch.models.encoders.patches import LAYERS, attention_shares, is_supported, patch_scores  # noqa: E402

VISION = {"image_size": 64, "layers": 3, "width": 48, "head_width": 16, "patch_size": 16}
POOLS: dict[str, dict[str, Any]] = {
    "class token": {},
    "mean": {"pool_type": "avg"},
    "mean, then norm": {"pool_type": "avg", "final_ln_after_pool": True},
    "attention pool": {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 4},
    "scaled layers": {"ls_init_value": 0.5},
}


def image_encoder(**vision: Any) -> Any:
    torch.manual_seed(3)
    made = open_clip.model.CLIP(32, {**VISION, **vision}, CLIP["text_cfg"]).visual.eval()
    for name, values in made.named_parameters():
        if name.endswith("bias") or "ln_" in name:  # else all 0 and 1, where a mistake would not show
            values.data += 0.1 * torch.randn_like(values)
    return made.requires_grad_(False)


@pytest.mark.parametrize("separate", [False, True])
def test_shares_sum_to_what_attention_gives(separate: bool) -> None:
    torch.manual_seed(0)
    channels = 24 if separate else 32
    attention = torch.nn.MultiheadAttention(32, 4, kdim=channels, vdim=channels, batch_first=True).requires_grad_(False)
    attention.in_proj_bias.normal_()
    attention.out_proj.bias.normal_()
    query, memory = torch.randn(1, 32), torch.randn(7, channels)
    expected = attention(query[None], memory[None], memory[None])[0][0, 0]
    found = attention_shares(attention, query, memory)
    assert found.shape == (7, 32)
    torch.testing.assert_close(found.sum(0) + attention.out_proj.bias, expected)


@pytest.mark.parametrize("pool", ["mean", "mean, then norm"])
def test_shares_of_a_mean_are_the_whole_score(pool: str) -> None:
    """Nothing else adds to it but the norm's bias, the same for every picture."""
    visual, vector = image_encoder(**POOLS[pool]), torch.randn(32)
    pictures = torch.randn(2, 1, 3, 64, 64)
    scores = [float(visual(pixels)[0] @ vector) for pixels in pictures]
    sums = [float(patch_scores(visual, pixels, vector).mean()) for pixels in pictures]
    assert sums[0] - sums[1] == pytest.approx(scores[0] - scores[1], rel=1e-3)


def test_shares_in_an_attention_pool_are_the_whole_score_but_for_the_class_token() -> None:
    visual, vector = image_encoder(**POOLS["attention pool"]), torch.randn(32)
    pixels = torch.randn(1, 3, 64, 64)
    made: list[Any] = []
    visual.transformer.register_forward_hook(lambda _, __, out: made.append(out))
    visual(pixels)
    pool = visual.attn_pool
    memory = pool.ln_k(made[0])[0]
    total = attention_shares(pool.attn, pool.ln_q(pool.query)[:1], memory)
    first = total.sum(0) + pool.attn.out_proj.bias
    torch.testing.assert_close(visual.ln_post(first) @ visual.proj, visual(pixels)[0], rtol=1e-4, atol=1e-5)
    assert patch_scores(visual, pixels, vector).shape == (4, 4)


def test_the_shares_of_one_layer_of_a_class_token_are_what_removing_it_takes() -> None:
    """With one layer whose MLP gives nothing, patches, class token and what went in are all that the vector has."""
    visual, vector = image_encoder(layers=1), torch.randn(32)
    block = visual.transformer.resblocks[0]
    block.mlp.c_proj.weight.zero_()
    block.mlp.c_proj.bias.zero_()
    pixels = torch.randn(1, 3, 64, 64)
    given: list[Any] = []
    block.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    found = patch_scores(visual, pixels, vector)
    start = given[0][0, 0]  # the class token as it went in
    tokens = block.ln_1(given[0][0])
    own = attention_shares(block.attn, tokens[:1], tokens)[0] + block.attn.out_proj.bias
    y = start + own
    whole = visual(pixels)[0] @ vector
    end = start + block.attention(tokens[None])[0, 0]
    rest = (
        (y - y.mean()) / (end.var(unbiased=False) + visual.ln_post.eps).sqrt() * visual.ln_post.weight
    ) @ visual.proj
    rest = rest @ vector + (visual.ln_post.bias @ visual.proj) @ vector
    torch.testing.assert_close(found.sum() + rest, whole, rtol=1e-3, atol=1e-4)
    assert LAYERS >= 1


def made_for_colours(**vision: Any) -> tuple[Any, Any]:
    """An encoder that passes colours on untouched, and the vector of a red patch."""
    visual = image_encoder(**vision)
    for name, values in visual.named_parameters():
        if "ln_" in name:
            values.fill_(1.0 if name.endswith("weight") else 0.0)
    visual.conv1.weight.zero_()
    for channel in range(3):  # red: first of each three features, and so on
        visual.conv1.weight[channel::3, channel] = 1.0 / 256
    visual.positional_embedding.zero_()
    visual.class_embedding.zero_()
    attentions = [block.attn for block in visual.transformer.resblocks]
    if visual.attn_pool is not None:
        attentions.append(visual.attn_pool.attn)
    for attention in attentions:
        width = attention.embed_dim
        attention.out_proj.weight.copy_(torch.eye(width))
        attention.out_proj.bias.zero_()
        attention.in_proj_bias.zero_()
        if attention.in_proj_weight is None:
            attention.v_proj_weight.copy_(torch.eye(*attention.v_proj_weight.shape))
        else:
            attention.in_proj_weight[2 * width :] = torch.eye(width)
    for block in visual.transformer.resblocks:
        block.mlp.c_proj.weight.zero_()
        block.mlp.c_proj.bias.zero_()
    visual.proj.copy_(torch.eye(*visual.proj.shape))
    red = torch.full((visual.proj.shape[1],), -1.0)
    red[0::3] = 2.0
    return visual, red


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    "where",
    [
        pytest.param((row, column), marks=[] if row == column else pytest.mark.slow)
        for row in range(4) for column in range(4)
    ],
)  # fmt: skip
def test_the_patch_of_the_colour_that_is_asked_for_adds_most(pool: str, where: tuple[int, int]) -> None:
    visual, vector = made_for_colours(**POOLS[pool])
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[:, 2] = 1.0  # blue, one green patch as a rival, and a red one
    rival = ((where[0] + 2) % 4, (where[1] + 1) % 4)
    for (row, column), channel in ((where, 0), (rival, 1)):
        pixels[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 0.0
        pixels[:, channel, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1.0
    found = patch_scores(visual, pixels, vector).numpy()
    assert np.unravel_index(int(found.argmax()), (4, 4)) == where


@pytest.mark.parametrize("kind", ["resnet", "unknown"])
def test_other_encoders_are_left_to_the_windows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8} if kind == "resnet" else CLIP["vision_cfg"]
    directory = save_model(tmp_path / "model", {**CLIP, "vision_cfg": vision})
    encoder = open_encoder(f"local-dir:{directory}")
    if kind == "unknown":
        assert is_supported(encoder.model.visual)  # type: ignore[attr-defined]
        encoder.model.visual.pool_type = "none"  # type: ignore[attr-defined]
    picture = Image.new("RGB", (50, 40), (200, 30, 30))
    vector = np.ones(32, dtype=np.float32) / 32**0.5
    assert encoder.patch_scores(picture, vector) is None
    if kind == "resnet":
        assert heat_of(encoder, picture, vector).source == "windows"


def test_the_whole_picture_is_on_the_map_whatever_its_shape(tmp_path: Path) -> None:
    """A model that cuts off the ends of wide pictures still sees them here."""
    directory = save_model(tmp_path / "model", {**CLIP, "vision_cfg": VISION})
    encoder = open_encoder(f"local-dir:{directory}")
    visual, vector = made_for_colours()
    encoder.model.visual = visual.requires_grad_(False)  # type: ignore[attr-defined]
    encoder.model.visual.preprocess_cfg = open_encoder(f"local-dir:{directory}").model.visual.preprocess_cfg  # type: ignore[attr-defined]
    pixels = np.full((60, 160, 3), (30, 30, 220), dtype=np.uint8)
    pixels[45:, 120:] = (220, 30, 30)
    heat = heat_of(encoder, Image.fromarray(pixels), vector.numpy())
    assert heat.source == "patches" and heat.map.shape == (GRID, GRID)
    row, column = np.unravel_index(int(heat.map.argmax()), heat.map.shape)
    assert row >= 3 * GRID // 4 and column >= 3 * GRID // 4
