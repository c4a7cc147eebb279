"""The built-in encoders as torch modules: the same function as the graphs they come from, and back again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.core.errors import EncoderError
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder, digest_of_weights

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from mmsearch.training.builtin_model import BuiltinModel  # noqa: E402
from mmsearch.training.builtin_modules import (  # noqa: E402
    HUBNESS,
    LONGEST,
    SHORTEST,
    Convolution,
    ImageNet,
    pooled,
    side_by_side,
    unit,
)
from mmsearch.training.fit import fit  # noqa: E402
from mmsearch.training.onnx_weights import read_tensors  # noqa: E402
from mmsearch.training.options import BuiltinModelOptions, Freezing, TrainOptions, ViewOptions  # noqa: E402
from mmsearch.training.pairs import ImageSource, Pairs  # noqa: E402
from tests.support.colours import COLOURS, save_colour  # noqa: E402

THINGS, PLACES = ["dogs", "cars", "cats", "birds", "cups"], ["beach", "road", "table", "roof", "field"]
TEXTS = ["dog", "two dogs play in the snow near a house", "a photo of a red car."]


def pictures() -> list[Image.Image]:
    y, x = np.mgrid[0:120, 0:160] / 20.0
    waves = [np.stack([np.sin(x * k), np.cos(y * k), np.sin(x + y * k)], axis=-1) for k in (1, 2, 3)]
    return [Image.fromarray(np.uint8(wave * 63 + 127)) for wave in waves]


@pytest.fixture(scope="module")
def network() -> BuiltinModel:
    torch.manual_seed(0)
    return BuiltinModel(SHIPPED_WEIGHTS, Freezing(1), BuiltinModelOptions())


@pytest.fixture(scope="module")
def encoder() -> BuiltinEncoder:
    return BuiltinEncoder(options=EncoderOptions(threads=2))


def vectors(network: BuiltinModel) -> tuple[np.ndarray, np.ndarray]:
    network.eval()
    pixels = torch.from_numpy(np.stack([network.view(image, None) for image in pictures()]))
    with torch.no_grad():
        images = network.images(pixels).vectors
        texts = network.texts(torch.from_numpy(network.tokenize(TEXTS))).vectors
    return images.numpy(), texts.numpy()


def test_they_are_the_shipped_graphs(network: BuiltinModel, encoder: BuiltinEncoder) -> None:
    images, texts = vectors(network)
    shipped = encoder.encode_images(pictures()), encoder.encode_texts(TEXTS)
    if network.is_new:  # version 0 has ConSE's half alone
        images, texts = (unit(torch.from_numpy(rows[:, -384:])).numpy() for rows in (images, texts))
    for found, expected in zip((images, texts), shipped, strict=True):
        np.testing.assert_allclose((found * expected).sum(1), 1, atol=1e-4)


def test_texts_do_not_depend_on_their_neighbours(network: BuiltinModel) -> None:
    network.eval()
    with torch.no_grad():
        together = network.texts(torch.from_numpy(network.tokenize(TEXTS))).vectors
        alone = [network.texts(torch.from_numpy(network.tokenize([text]))).vectors[0] for text in TEXTS]
    np.testing.assert_allclose(together.numpy(), torch.stack(alone).numpy(), atol=1e-5)


@pytest.mark.slow
def test_training_changes_only_what_learns_and_exports_what_it_learned(tmp_path: Path) -> None:
    paths = [save_colour(tmp_path / f"{n}.png", colour, (40, 30), n) for n, colour in enumerate(list(COLOURS) * 2)]
    pairs = Pairs(tuple(map(ImageSource, paths)), tuple((f"a {path} picture",) for path in list(COLOURS) * 2))
    options = TrainOptions(
        epochs=1, batch_size=8, average=0.0, device="cpu", threads=2, views=ViewOptions(cached=2), encoder_rate=1e-3
    )
    options = replace(options, step=replace(options.step, words_weight=0.5))
    torch.manual_seed(0)
    network = BuiltinModel(SHIPPED_WEIGHTS, Freezing(1), BuiltinModelOptions())
    network.class_names = network.class_names[:40]  # fewer prompts to learn the gate from
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit(network, pairs.take(range(12)), pairs.take(range(12, 16)), options, tmp_path / "run")
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    last = len(network.text.branch) - 1
    assert {
        "image.head.up.weight",
        "image.network.blocks.6.0.conv_pw.weight",
        f"text.branch.{last}.up.weight",
    } <= changed
    for frozen in ("image.network.blocks.5", "text.layers.", "text.words", "image.classes", "frozen_rest"):
        assert not any(name.startswith(frozen) for name in changed), frozen
    (tmp_path / "out").mkdir()
    network.export(tmp_path / "out")
    encoder = BuiltinEncoder(tmp_path / "out", EncoderOptions(threads=2))
    assert encoder.spec.digest == digest_of_weights(tmp_path / "out")
    images, texts = vectors(network)
    # Where int8 weights move a class into or out of the 20 that ConSE averages, its half of the vector jumps.
    np.testing.assert_allclose((images * encoder.encode_images(pictures())).sum(1), 1, atol=6e-2)
    np.testing.assert_allclose((texts * encoder.encode_texts(TEXTS)).sum(1), 1, atol=2e-3)
    size = encoder.prepare_image(pictures()[0])[None]
    assert encoder.image_grid(size).shape == (1, 352, 9, 9)
    assert encoder.text_tokens("a dog").shape == (1, 4, 384)
    again = BuiltinModel(tmp_path / "out", Freezing(0), BuiltinModelOptions())
    np.testing.assert_allclose(vectors(again)[1], texts, atol=2e-2)
    assert again.text.shares == network.text.shares


def test_what_objects_are_found_is_held_while_the_trunk_learns() -> None:
    torch.manual_seed(0)
    network = BuiltinModel(SHIPPED_WEIGHTS, Freezing(1), BuiltinModelOptions()).eval()
    pixels = torch.from_numpy(np.stack([network.view(image, None) for image in pictures()]))
    with torch.no_grad():
        kept = network.image_start(pixels)
        assert float(network.image_rest(kept).drift) < 1e-6
        network.image.network.conv_head.bias += 0.5 * torch.randn(1280)  # as if the features had learned something
        features = network.image.network.rest(kept[0], network.stages)[1]
        found = network.image.objects(features)
        old = network.image.objects(_features_before(network, kept[0]))
        with_objects = float(network.image_rest(kept).drift)
        network.image.objects = None
        classes_alone = float(network.image_rest(kept).drift)
    assert ((found - old) ** 2).mean() > 0.01
    np.testing.assert_allclose(with_objects - classes_alone, float(((found - old) ** 2).mean()), rtol=1e-3)


def _features_before(network: BuiltinModel, kept: torch.Tensor) -> torch.Tensor:
    """The features as they were, by the copy of the stages that training does not touch."""
    assert network.frozen_rest is not None
    *stages, head, _ = network.frozen_rest
    for stage in stages:
        kept = stage(kept)
    return torch.nn.functional.relu6(head(kept)).mean((2, 3))


def test_names_and_captions_are_weighed_differently(network: BuiltinModel) -> None:
    if network.is_new:
        pytest.skip("version 0 is shipped: it has no joint space to weigh")
    rows = vectors(network)[1]
    conse_share = (rows[:, -384:] ** 2).sum(1)
    assert conse_share[0] > 0.3 > 0.1 > conse_share[1] and conse_share[2] > 0.3


def test_shares_are_what_an_inner_product_says() -> None:
    random = torch.Generator().manual_seed(0)
    joint, conse = (unit(torch.randn(3, size, generator=random)) for size in (5, 4))
    both = side_by_side(joint, conse)
    np.testing.assert_allclose(both @ both.T, (joint @ joint.T + conse @ conse.T) / 2, atol=1e-6)


@pytest.mark.parametrize("count", [3, 40])
def test_the_joint_half_of_a_picture_near_to_captions_in_general_is_shorter(count: int) -> None:
    random = torch.Generator().manual_seed(0)
    image = ImageNet(8, 16, captions=count)
    assert image.captions is not None
    places = unit(torch.randn(count, 16, generator=random))
    usual = 0.3
    with torch.no_grad():
        image.captions.weight.copy_(places)
        image.captions.bias.fill_(-usual)
        joint = torch.cat([unit(torch.randn(50, 16, generator=random)), places[:1], -places[:1]])
        conse = unit(torch.randn(52, 384, generator=random))
        rows = image.vectors(joint, conse).numpy()
    for row, ours, theirs in zip(rows, joint.numpy(), conse.numpy(), strict=True):
        nearest = sorted(float(ours @ place) for place in places.numpy())[-8:]
        factor = min(max(1 - HUBNESS * (np.mean(nearest) - usual), SHORTEST), LONGEST)
        length = factor * 0.5**0.5
        np.testing.assert_allclose(row, np.concatenate([ours * length, theirs * (1 - length**2) ** 0.5]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    hub, stranger = (np.linalg.norm(rows[place, :16]) for place in (50, 51))
    assert hub < stranger


def test_captions_in_general_are_known_by_the_names_that_training_reads(network: BuiltinModel) -> None:
    stored = read_tensors(SHIPPED_WEIGHTS / "image.onnx")
    places = stored["captions.weight"]
    assert places.shape == (1000, 512) and len(set(stored["captions.bias"].tolist())) == 1
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1, atol=1e-2)
    assert network.image.captions is not None
    np.testing.assert_array_equal(network.image.captions.weight.numpy(), places)


def test_after_training_captions_in_general_are_those_that_it_learned_from() -> None:
    network = BuiltinModel(SHIPPED_WEIGHTS, Freezing(0), BuiltinModelOptions())
    before = network.image.captions
    network.settle([f"{number} red cars" for number in range(20)])
    assert network.image.captions is before  # so few do not say where others lie
    network.settle([f"{number} {thing} on a {place}" for number in range(4) for thing in THINGS for place in PLACES])
    after = network.image.captions
    assert before is not None and after is not None and after is not before
    assert after.weight.shape == (4 * len(THINGS) * len(PLACES) // 8, 512)
    np.testing.assert_allclose(after.weight.norm(dim=1).numpy(), 1, atol=1e-5)
    assert set(after.bias.tolist()) == set(before.bias.tolist())
    own, others = (network.texts(torch.from_numpy(network.tokenize(texts))).learned for texts in (
        ["2 dogs on a beach", "3 cars on a table"], ["a woman climbs a steep rock", "the crowd cheers for the singer"],
    ))  # fmt: skip
    with torch.no_grad():
        assert network.image.hubness(own).min() > network.image.hubness(others).max()


@pytest.mark.parametrize(("side", "kernel", "stride"), [(9, 3, 1), (9, 3, 2), (10, 3, 2), (17, 5, 2), (16, 5, 2)])
def test_padding_is_that_of_tensorflow(side: int, kernel: int, stride: int) -> None:
    """SAME: ceil(side / stride) places, the missing pixels split with the odd one at the end."""
    torch.manual_seed(0)
    convolution = Convolution(2, 3, kernel, stride)
    x = torch.randn(1, 2, side, side)
    places = -(-side // stride)
    missing = max((places - 1) * stride + kernel - side, 0)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), *[(missing // 2, missing - missing // 2)] * 2))
    weight = convolution.weight.detach().numpy()
    expected = np.zeros((1, 3, places, places))
    for row in range(places):
        for column in range(places):
            window = padded[0, :, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            expected[0, :, row, column] = (weight * window).sum((1, 2, 3))
    np.testing.assert_allclose(convolution(x).detach().numpy(), expected, atol=1e-4)


def test_pooling_leaves_padding_out() -> None:
    x = torch.randn(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_allclose(pooled(x, mask)[0], x[0, :2].sum(0), atol=1e-6)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    tensors = read_tensors(SHIPPED_WEIGHTS / "text.onnx")
    from mmsearch.training.builtin_model import _text_net

    del tensors["layers.3.up.weight"]
    with pytest.raises(EncoderError, match=r"layers\.3\.up\.weight is missing"):
        _text_net(tensors, 1, BuiltinModelOptions(), (0.9, 0.3))
