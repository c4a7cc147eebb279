"""Rerankers: the contract, and that training one teaches what two encoders cannot know."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mmsearch.core.errors import EncoderError, ModelMissing, VectorError
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.rerankers.base import standard
from mmsearch.models.rerankers.builtin import BuiltinReranker, has_reranker
from tests.support.colour_folder import NAMES, SIZE, save_encoder
from tests.support.colours import COLOURS

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from mmsearch.training.options import FusionOptions, RerankerOptions  # noqa: E402
from mmsearch.training.pairs import ImageSource, Pairs  # noqa: E402
from mmsearch.training.reranker_fit import list_loss, train_reranker  # noqa: E402
from mmsearch.training.reranker_modules import Fusion, GridTokens  # noqa: E402

SIDE = 3


class MeanColour(torch.nn.Module):
    """Pixels to the mean colour, which is all that the first stage sees, and to a grid of 3 × 3 colours."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        grid = torch.nn.functional.avg_pool2d(pixels.permute(0, 3, 1, 2).float() / 255 - 0.5, SIZE // SIDE)
        mean = grid.mean((2, 3))
        return mean / mean.norm(dim=-1, keepdim=True), grid


class NamedColours(torch.nn.Module):
    """Token ids to the mean of the named colours, and to tokens that know their colour and their place."""

    def __init__(self) -> None:
        super().__init__()
        values = torch.tensor([[127.5] * 3, [127.5] * 3, *(list(COLOURS[name]) for name in NAMES)]) / 255 - 0.5
        self.colours = torch.nn.Embedding.from_pretrained(values.float())
        self.places = torch.nn.Parameter(torch.eye(16))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.colours(input_ids)
        mask = attention_mask.float()[..., None]
        mean = (x * mask).sum(1) / mask.sum(1) + 1e-4
        places = self.places[: input_ids.shape[1]].expand(input_ids.shape[0], input_ids.shape[1], 16)
        return mean / mean.norm(dim=-1, keepdim=True), torch.cat([x, places], dim=2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the built-in layout that compares mean colours: it cannot tell left from right."""
    folder = tmp_path_factory.mktemp("encoder")
    return save_encoder(folder, MeanColour(), NamedColours(), ["vector", "grid"], ["vector", "tokens"])


def halves(folder: Path, copies: int, seed: int) -> Pairs:
    """Pictures of two colours side by side, captioned from left to right."""
    random = np.random.default_rng(seed)
    images, captions = [], []
    for copy in range(copies):
        for left in NAMES:
            for right in NAMES:
                if left == right:
                    continue
                pixels = np.zeros((SIZE, SIZE, 3))
                pixels[:, : SIZE // 2], pixels[:, SIZE // 2 :] = COLOURS[left], COLOURS[right]
                noisy = np.clip(pixels + random.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)
                path = folder / f"{seed}-{copy}-{left}-{right}.png"
                Image.fromarray(noisy).save(path)
                images.append(ImageSource(path))
                captions.append((f"{left} {right}",))
    return Pairs(tuple(images), tuple(captions))


OPTIONS = RerankerOptions(
    epochs=60, passes=1, batch_size=10, candidates=5, neighbours=2, rate=4e-3, dev_queries=30, top=10, threads=1,
    fusion=FusionOptions(width=32, heads=2, layers=1, inner=32, inner_heads=2, dropout=0.0, places_dropped=0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    output, photos = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("photos")
    return output, train_reranker(encoder, halves(photos, 1, 0), halves(photos, 1, 1), OPTIONS, output)


@pytest.fixture(scope="module")
def untrained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker that has hardly learned anything, which takes a tenth of the time."""
    output, pairs = tmp_path_factory.mktemp("untrained"), halves(tmp_path_factory.mktemp("few"), 1, 0)
    train_reranker(encoder, pairs, pairs, replace(OPTIONS, epochs=1, dev_queries=4), output)
    return output


@pytest.mark.slow
def test_it_learns_what_the_towers_cannot_know(trained: tuple[Path, Any], tmp_path: Path) -> None:
    output, result = trained
    assert result.before < 0.7, "mean colours cannot tell the left from the right"
    assert result.after > result.before + 0.15
    assert result.losses[-OPTIONS.list_epochs - 1] < result.losses[0], "lists add a loss of their own at the end"
    reranker = BuiltinReranker(output, EncoderOptions(threads=1))
    pairs = halves(tmp_path, 1, 2)
    images = [source.read() for source in pairs.images]
    tokens = reranker.image_tokens(images)
    firsts = reranker.encoder.encode_images(images) @ reranker.encoder.encode_texts([t for (t,) in pairs.captions]).T
    hits = []
    for row, (caption,) in enumerate(pairs.captions):
        mixed = reranker.mixed(firsts[:, row], reranker.score_tokens(caption, tokens))
        hits.append(int(np.argmax(mixed)) == row)
    plain = np.mean(firsts.argmax(0) == np.arange(len(images)))
    assert np.mean(hits) > plain + 0.1


def test_kept_tokens_give_the_same_scores(untrained: Path, tmp_path: Path) -> None:
    reranker = BuiltinReranker(untrained, EncoderOptions(threads=1))
    images = [source.read() for source in halves(tmp_path, 1, 3).images]
    tokens = reranker.image_tokens(images)
    assert tokens.dtype == np.float16 and tokens.shape[1:] == reranker.spec.token_shape
    assert tokens[0].nbytes == reranker.spec.bytes_per_image
    scores = reranker.score_tokens("red blue", tokens)
    np.testing.assert_allclose(scores, reranker.score("red blue", images), atol=1e-5)
    alone = [reranker.score_tokens("red blue", tokens[i : i + 1])[0] for i in range(len(tokens))]
    np.testing.assert_allclose(scores, alone, atol=1e-4)
    assert reranker.score("red blue", []).shape == (0,)


@pytest.mark.slow
def test_the_exported_graphs_are_the_trained_networks(trained: tuple[Path, Any], encoder: Path, tmp_path: Path) -> None:
    again = train_reranker(encoder, halves(tmp_path, 1, 0), halves(tmp_path, 1, 1), OPTIONS, tmp_path / "again")
    assert again == trained[1], "equal seeds, equal rerankers"
    for name in ("rerank_tokens.onnx", "rerank_score.onnx"):
        assert (tmp_path / "again" / name).read_bytes() == (trained[0] / name).read_bytes()


def test_wrong_tokens_say_both_shapes(untrained: Path) -> None:
    reranker = BuiltinReranker(untrained, EncoderOptions(threads=1))
    with pytest.raises(VectorError, match=r"\(9, 31\).*\(9, 32\)"):
        reranker.score_tokens("red", np.zeros((2, 9, 31), dtype=np.float16))


def test_what_is_missing_or_does_not_fit_is_refused(untrained: Path, encoder: Path, tmp_path: Path) -> None:
    assert has_reranker(untrained) and not has_reranker(encoder)
    with pytest.raises(ModelMissing, match="--reranker"):
        BuiltinReranker(encoder)
    broken = shutil.copytree(untrained, tmp_path / "broken")
    (broken / "rerank_score.onnx").unlink()
    with pytest.raises(ModelMissing, match="rerank_score"):
        BuiltinReranker(broken)
    fields = json.loads((broken / "reranker.json").read_text())
    (broken / "reranker.json").write_text(json.dumps({**fields, "format": 9}))
    with pytest.raises(EncoderError, match="layout 9"):
        BuiltinReranker(broken)
    other = shutil.copytree(untrained, tmp_path / "other")
    description = json.loads((other / "encoder.json").read_text())
    (other / "encoder.json").write_text(json.dumps({**description, "digest": "e" * 64}))
    with pytest.raises(EncoderError, match=r"dddddddddddd.*eeeeeeeeeeee"):
        BuiltinReranker(other)


def test_all_pairs_at_once_are_each_pair_by_itself() -> None:
    torch.manual_seed(0)
    options = FusionOptions(features=12, width=8, heads=2, layers=1, inner=8, inner_heads=2)
    places = GridTokens(5, 6, options).eval()(torch.randn(4, 5, 2, 3))
    fusion = Fusion(7, options).eval()
    lengths = (5, 2, 3)
    mask = torch.tensor([[float(place < length) for place in range(5)] for length in lengths])
    text = torch.randn(3, 5, 7)
    with torch.inference_mode():
        found = fusion.all_pairs(text, places, mask)
        for row, length in enumerate(lengths):
            alone = fusion.first_part(text[row : row + 1, :length], places)
            torch.testing.assert_close(found[row], alone, rtol=1e-4, atol=1e-5)
            # The second part starts from nothing: before it has learned, the whole is the first part.
            torch.testing.assert_close(fusion(text[row : row + 1, :length], places), alone, rtol=1e-4, atol=1e-5)


def test_list_loss_against_numpy() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    ranking = np.mean([np.log(np.exp(row).sum()) - row[0] for row in logits])
    sigmoid = 1 / (1 + np.exp(-logits))
    matching = np.mean(-0.5 * np.log(sigmoid[:, 0]) - 0.5 * np.log(1 - sigmoid[:, 1:]).mean(1))
    found = list_loss(torch.from_numpy(logits), RerankerOptions(itm_weight=0.7))
    assert float(found) == pytest.approx(float(ranking + 0.7 * matching), abs=1e-5)


@given(arrays.arrays(np.float32, st.integers(0, 20), elements=st.floats(-100, 100, width=32)))
def test_standard_scores_are_finite_and_keep_the_order(values: np.ndarray) -> None:
    scaled = standard(values)
    assert scaled.shape == values.shape and np.isfinite(scaled).all()
    assert all(scaled[i] <= scaled[j] for i in range(len(values)) for j in range(len(values)) if values[i] < values[j])
