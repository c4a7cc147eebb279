"""The second look: its regression and its score against slow oracles, its file, and how it plugs into a search."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import EncoderError, MmsearchError, ModelMissing, UsageError
from mmsearch.ingest import IngestOptions
from mmsearch.models.encoders.builtin import BuiltinEncoder
from mmsearch.models.encoders.caption_centroids import write_caption_centroids
from mmsearch.models.encoders.views import ManyViews, further_views
from mmsearch.models.rerankers import open_reranker
from mmsearch.models.rerankers.second_look import (
    FILE,
    LEAST,
    SecondLook,
    SecondLookModel,
    has_second_look,
    hubness,
    terms,
)
from mmsearch.query import SearchOptions
from mmsearch.query.heat import places_lost
from tests.support.colour_folder import DIGEST, NAMES, SIZE, save_encoder
from tests.support.colours import COLOURS, ColourEncoder, save_colour

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from second_look_fit import CAPTION_SHARE, fit_second_look, fit_weights, word_shares  # noqa: E402


class MeanColour(torch.nn.Module):
    """Pixels to their mean colour: as it is, and, as logits, beside the difference of left and right."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = pixels.permute(0, 3, 1, 2).float() / 255 - 0.5
        mean, sides = x.mean((2, 3)), x[..., : SIZE // 2].mean((2, 3)) - x[..., SIZE // 2 :].mean((2, 3))
        return mean / mean.norm(dim=-1, keepdim=True), torch.cat([mean, sides], 1)


class NamedColours(torch.nn.Module):
    """Token ids to the mean of the named colours."""

    def __init__(self) -> None:
        super().__init__()
        values = torch.tensor([[127.5] * 3, [127.5] * 3, *(list(COLOURS[name]) for name in NAMES)]) / 255 - 0.5
        self.colours = torch.nn.Embedding.from_pretrained(values.float())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask.float()[..., None]
        mean = (self.colours(input_ids) * mask).sum(1) / mask.sum(1) + 1e-4
        return mean / mean.norm(dim=-1, keepdim=True)


def fitted(rank: int = 20, seed: int = 0) -> SecondLookModel:
    """Of noisy colours and captions that name them."""
    random = np.random.default_rng(seed)
    colours = [NAMES[i % len(NAMES)] for i in range(60)]
    mean = np.array([COLOURS[name] for name in colours]) / 255 - 0.5 + random.normal(0, 0.03, (60, 3))
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    inputs = np.hstack([unit, mean, random.normal(0, 0.1, (60, 3))])[:, None].astype(np.float32)
    vocabulary, shares = word_shares([[f"a {name} thing", f"{name}"] for name in colours], least=2)
    return fit_second_look(DIGEST, inputs, vocabulary, shares, unit[:, :2].astype(np.float32), rank=rank, ridge=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the built-in layout that compares mean colours, with a second look beside it."""
    folder = save_encoder(
        tmp_path_factory.mktemp("encoder"), MeanColour(), NamedColours(), ["vector", "logits"], ["vector"]
    )
    fitted().write(folder / FILE)
    return folder


def colour(name: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, COLOURS[name])


def test_words_and_pairs_of_words() -> None:
    assert terms("A red-hot car, a car.") == {"a", "red", "hot", "car", "a red", "red hot", "hot car", "car a", "a car"}
    assert terms(" … ") == set()
    vocabulary, shares = word_shares([["red car", "red"], ["red bus"], ["blue car"]], least=2)
    assert vocabulary == ("car", "red")
    np.testing.assert_allclose(shares, [[0.5, 1.0], [0.0, 1.0], [1.0, 0.0]])


def loss_of(inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray, ridge: float) -> float:
    return float(((targets - inputs @ weights) ** 2).sum() + ridge * (weights**2).sum())


@pytest.mark.parametrize("rank", [1, 2, 3, 99])
def test_the_regression_is_the_best_of_its_rank(rank: int) -> None:
    random = np.random.default_rng(3)
    inputs = random.normal(size=(40, 2, 5)).astype(np.float32)
    shares = random.uniform(0.1, 0.9, (40, 4)).astype(np.float32)
    captions = random.normal(size=(40, 2)).astype(np.float32)
    model = fit_second_look("x", inputs, list("abcd"), shares, captions, rank=rank, ridge=30.0)
    rows = inputs.reshape(-1, 5).astype(np.float64)
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-5)
    usual = shares.mean(0)
    scale = np.sqrt(usual * (1 - usual)) + 1e-6
    targets = np.hstack([(shares - usual) / scale, CAPTION_SHARE * (captions - captions.mean(0))]).repeat(2, axis=0)
    weights = model.latent.T @ np.hstack([model.words.T / scale, CAPTION_SHARE * model.captions.T])
    assert np.linalg.matrix_rank(weights, tol=1e-4) == min(rank, 5) == model.rank
    found = loss_of(rows, targets, weights, 30.0)
    # Alternating least squares from many starts, which knows nothing of singular vectors.
    best = math.inf
    for seed in range(12):
        right = np.random.default_rng(seed).normal(size=(min(rank, 5), 6))
        for _ in range(60):
            right = np.linalg.qr(right.T)[0].T
            left = np.linalg.solve(rows.T @ rows + 30.0 * np.eye(5), rows.T @ targets @ right.T)
            inner = left.T @ (rows.T @ rows + 30.0 * np.eye(5)) @ left
            right = np.linalg.solve(inner + 1e-12 * np.eye(len(inner)), left.T @ rows.T @ targets)
        best = min(best, loss_of(rows, targets, left @ right, 30.0))
    assert found == pytest.approx(best, rel=1e-4)
    np.testing.assert_allclose((rows @ model.latent.T).std(0), 1.0, atol=1e-3)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"shares must be \(4, 1\)"):
        fit_second_look(
            "x", np.zeros((4, 1, 3), np.float32), ["a"], np.zeros((3, 1), np.float32), np.zeros((4, 2), np.float32)
        )


def test_what_speaks_for_a_picture_by_hand() -> None:
    model = fitted()
    random = np.random.default_rng(5)
    vectors = random.normal(size=(7, 3)).astype(np.float32)
    logits = random.normal(size=(7, 6)).astype(np.float32)
    text = random.normal(size=3).astype(np.float32)
    columns = np.array([1, 3, 4])
    expected = []
    for vector, row in zip(vectors, logits, strict=True):
        given_ = [(x - m) / s for x, m, s in zip([*vector, *row], model.middle, model.spread, strict=True)]
        latent = [sum(w * x for w, x in zip(line, given_, strict=True)) for line in model.latent]
        words = 0.0
        for column in columns:
            share = model.usual[column] + sum(w * z for w, z in zip(model.words[column], latent, strict=True))
            words += math.log(min(max(share, LEAST * model.usual[column]), 1.0) / model.usual[column])
        place = [sum(w * z for w, z in zip(line, latent, strict=True)) for line in model.captions]
        length = math.sqrt(sum(x * x for x in place))
        agree = sum(x / length * (t - u) for x, t, u in zip(place, text[:2], model.typical, strict=True))
        expected.append([sum(a * b for a, b in zip(vector, text, strict=True)), words, agree])
    np.testing.assert_allclose(
        model.parts(text, columns, vectors, model.latents(vectors, logits)), expected, rtol=2e-3, atol=2e-4
    )
    assert not model.parts(text, np.zeros(0, dtype=np.int64), vectors, model.latents(vectors, logits))[:, 1].any()


def test_the_file_holds_it_to_one_part_in_254(tmp_path: Path) -> None:
    model = replace(fitted(), weights=np.array([1, 2, 3, 4], dtype=np.float32), mix=0.7)
    model.write(tmp_path / FILE)
    read = SecondLookModel.read(tmp_path / FILE)
    assert (read.vocabulary, read.encoder_digest, read.mix) == (model.vocabulary, DIGEST, 0.7)
    np.testing.assert_array_equal(read.weights, model.weights)
    for name in ("latent", "words", "captions"):
        one, other = getattr(model, name), getattr(read, name)
        assert (np.abs(one - other) <= np.abs(one).max(1, keepdims=True) / 253 + 1e-9).all()


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2000))
def test_any_bytes_are_read_or_refused(some: bytes, cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        fitted().write(path)
        whole = path.read_bytes()
        for content in (some, whole[:cut], whole[:cut] + some + whole[cut + len(some) :]):
            path.write_bytes(content)
            try:
                SecondLookModel.read(path)
            except MmsearchError as error:
                assert FILE in str(error)


def test_shapes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    replace(fitted(), vocabulary=("red",)).write(tmp_path / FILE)
    with pytest.raises(EncoderError, match="words has the shape"):
        SecondLookModel.read(tmp_path / FILE)
    with pytest.raises(ModelMissing, match="cannot be read"):
        SecondLookModel.read(tmp_path / "none.npz")


def test_it_looks_at_the_mirrored_picture_and_its_middle(folder: Path) -> None:
    reranker = SecondLook(folder)
    picture = colour("red")
    picture.paste(COLOURS["blue"], (0, 0, 20, 30))
    picture.paste(COLOURS["white"], (0, 0, 40, 3))
    flat = reranker.image_tokens([picture, colour("green")]).reshape(2, -1).astype(np.float32)
    encoder = BuiltinEncoder(folder)
    views = [encoder.prepare_image(view) for view in further_views(picture)]
    vectors, logits = encoder.vectors_and_logits(np.stack(views))
    mean = vectors.sum(0) / np.linalg.norm(vectors.sum(0))
    np.testing.assert_allclose(flat[0, :3], mean, atol=1e-3)
    latents = reranker.model.latents(mean[None], logits.mean(0)[None])
    np.testing.assert_allclose(flat[0, 3 : 3 + reranker.model.rank], latents[0], atol=2e-2)
    assert not flat[:, 3 + reranker.model.rank :].any()
    reranker.spec = replace(reranker.spec, token_shape=(4, 128))
    assert places_lost(reranker, picture, "red") is None, "its tokens stand for no places, in a square or not"


def test_a_score_depends_on_no_other_picture_and_prefers_what_is_named(folder: Path) -> None:
    reranker = SecondLook(folder)
    tokens = reranker.image_tokens([colour(name) for name in NAMES])
    for place, name in enumerate(NAMES):
        scores = reranker.score_tokens(name, tokens)
        assert scores.argmax() == place
        alone = [float(reranker.score_tokens(name, tokens[i : i + 1])[0]) for i in range(len(NAMES))]
        np.testing.assert_allclose(scores, alone, rtol=1e-4, atol=1e-4)
    assert reranker.score_tokens("red", tokens[:0]).shape == (0,)
    assert np.isfinite(reranker.score_tokens("zzz \udcff", tokens)).all()


def test_a_hub_has_to_fit_better(folder: Path, tmp_path: Path) -> None:
    """Captions of the encoder that all speak of red: how near a picture lies to them counts by the fourth weight."""
    own = shutil.copytree(folder, tmp_path / "model")
    model = replace(SecondLookModel.read(own / FILE), weights=np.array([1, 1, 1, -3], dtype=np.float32))
    model.write(own / FILE)
    plain = SecondLook(own)
    red = plain.encoder.encode_texts(["red"])
    write_caption_centroids(own, DIGEST, red)
    tokens = plain.image_tokens([colour(name) for name in NAMES])
    flat = tokens.reshape(len(NAMES), -1)[:, :3].astype(np.float32)
    moved = SecondLook(own).score_tokens("blue", tokens) - plain.score_tokens("blue", tokens)
    np.testing.assert_allclose(moved, -3 * (flat @ red[0]), atol=0.02)
    texts = np.array([[1, 0, 0], [0, 0.6, 0.8]], dtype=np.float32)
    np.testing.assert_allclose(
        hubness(texts, flat, red[:, :2]), [flat[:, :2] @ red[0, :2], np.zeros(len(flat))], atol=1e-6
    )


def test_which_one_a_name_opens(folder: Path, tmp_path: Path) -> None:
    encoder = BuiltinEncoder(folder)
    for one in (encoder, ManyViews(encoder, "colours+views")):
        found = open_reranker("builtin", encoder=one)
        assert isinstance(found, SecondLook) and found.encoder is encoder
    assert isinstance(open_reranker(str(folder)), SecondLook)
    with pytest.raises(ModelMissing, match="no reranker of its own"):
        open_reranker("builtin", encoder=ColourEncoder())
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / FILE).unlink()
    with pytest.raises(ModelMissing, match="has no reranker on this machine"):
        open_reranker("builtin", encoder=BuiltinEncoder(copy))
    replace(fitted(), encoder_digest="e" * 64).write(copy / FILE)
    with pytest.raises(EncoderError, match="belongs to an encoder"):
        open_reranker("builtin", encoder=BuiltinEncoder(copy))


def test_the_shipped_one_opens() -> None:
    reranker = open_reranker()
    assert isinstance(reranker, SecondLook) and has_second_look(reranker.encoder.directory)
    assert {"dog", "a dog", "snow"} <= set(reranker.model.vocabulary)
    assert reranker.spec.bytes_per_image <= 3000


def test_a_search_with_it(folder: Path, tmp_path: Path) -> None:
    """From the files, from kept tokens, and without: a damaged file leaves the first stage, and says so."""
    photos = tmp_path / "photos"
    for seed, name in enumerate(NAMES):
        save_colour(photos / f"{name}.png", name, seed=seed)
    own = shutil.copytree(folder, tmp_path / "model")
    options = SearchOptions(k=6, words=0.0, reranker="builtin")
    with Index.open(tmp_path / "index", create=True, encoder=str(own)) as index:
        index.add(photos)
        opened = index.search("red", options=options)
        assert all("rerank" in hit.parts for hit in opened) and Path(opened[0].path).name == "red.png"
        index.add(photos, options=IngestOptions(keep_tokens="builtin"))
        kept = {hit.path: hit.score for hit in index.search("red", options=options)}
        assert kept == pytest.approx({hit.path: hit.score for hit in opened}, abs=0.02)
        plain = index.search("red", options=replace(options, reranker=None))
    (own / FILE).write_bytes(b"broken")
    notes: list[str] = []
    with Index.open(tmp_path / "index") as index:
        assert index.search("red", options=options, note=notes.append) == plain
    assert "not reranked" in notes[0] and FILE in notes[0]


def test_the_weights_follow_what_tells_the_right_one() -> None:
    random = np.random.default_rng(0)
    right = random.integers(0, 10, 400)
    right[::20] = -1
    parts = random.normal(size=(400, 10, 3)).astype(np.float32) * np.float32([1, 30, 1])
    first = random.normal(size=(400, 10)).astype(np.float32)
    for row, place in enumerate(right):
        if place >= 0:
            parts[row, place, 1] += 45
            first[row, place] += 0.5
    weights, mix = fit_weights(first, parts, right)
    size = np.float32([1, 30, 1]) * weights
    assert size[1] > 5 * max(abs(size[0]), abs(size[2])) and mix > 1
    # Where all that is wrong is hidden nothing is learned of it.
    hidden = np.zeros((400, 10), dtype=bool)
    hidden[np.arange(400), right] = True
    assert np.abs(fit_weights(first, parts, right, hidden)[0]).max() < 1e-3
