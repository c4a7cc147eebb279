"""Training a tiny open_clip model on pictures of one colour each: it learns, resumes exactly, and exports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.core.errors import UsageError
from mmsearch.models.encoders import open_encoder
from tests.support.colours import COLOURS, save_colour

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

from mmsearch.training.batches import Batches  # noqa: E402
from mmsearch.training.dual_encoder import DualEncoder  # noqa: E402
from mmsearch.training.fit import fit  # noqa: E402
from mmsearch.training.hubness import write_hubness_samples  # noqa: E402
from mmsearch.training.losses import Objective  # noqa: E402
from mmsearch.training.options import Freezing, LossOptions, StepOptions, TrainOptions, ViewOptions  # noqa: E402
from mmsearch.training.pair_sources import read_pairs  # noqa: E402
from mmsearch.training.pairs import ImageSource, Pairs  # noqa: E402
from mmsearch.training.run import TrainRequest, open_network, train  # noqa: E402
from mmsearch.training.steps import backward  # noqa: E402
from mmsearch.training.trainer import schedule  # noqa: E402
from mmsearch.training.views import ImageFeed  # noqa: E402

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
OPTIONS = TrainOptions(
    epochs=6,
    batch_size=24,
    learning_rate=3e-3,
    encoder_rate=3e-3,
    average=0.5,
    device="cpu",
    threads=1,
    loss=LossOptions(scale=10.0),
    views=ViewOptions(smallest=0.5, colour=0.0),
)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    directory.mkdir()
    torch.manual_seed(0)
    (directory / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    made = open_clip.create_model(f"local-dir:{directory}", load_weights=False)
    torch.save(made.state_dict(), directory / "open_clip_pytorch_model.bin")
    return directory


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 good pairs of two captions an image, and 5 % of rows that cannot be used."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = ["image\tcaption"]
    for number in range(100):
        colour = list(COLOURS)[number % len(COLOURS)]
        save_colour(folder / f"{number:03}.png", colour, (20, 16), seed=number)
        lines += [f"{number:03}.png\ta {colour} picture", f"{number:03}.png\teverything is {colour}"]
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (folder / "empty.png").touch()
    lines += ["torn.jpg\ta red thing", "empty.png\ta blue thing", "gone.png\ta green thing", "000.png\t ", "one cell"]
    lines += [f"missing{n}.png\tnothing" for n in range(5)]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.tsv"


@pytest.fixture(scope="module")
def split(table: Path) -> tuple[Pairs, Pairs]:
    pairs = read_pairs(table)
    good = pairs.take(row for row, image in enumerate(pairs.images) if image.path.stem.isdecimal())
    return good.split(0.2)


def tiny(model: Path, learns: str = "all") -> DualEncoder:
    return open_network(str(model), Freezing.parse(learns), None, 0)  # type: ignore[arg-type]


def weights(network: DualEncoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_it_learns_and_the_result_is_an_encoder(model: Path, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "trained"
    request = TrainRequest(table, output, str(model), held_out=0.2, learns=Freezing(None))
    report = train(request, replace(OPTIONS, epochs=25))
    assert report.images + report.dev_images == 100 and report.captions == 2 * report.images
    # Eight colours among about twenty held-out images: even a perfect model cannot tell two of one colour apart.
    gain = report.after["image_retrieval_recall@5"] - report.before["image_retrieval_recall@5"]
    assert report.is_better and gain > 0.3, (report.before, report.after)
    reasons = {skip.path.rsplit("/", 1)[-1]: skip.reason for skip in report.refused}
    assert len(reasons) == 10 and "truncated" in reasons["torn.jpg"] and "empty" in reasons["empty.png"]
    listed = [json.loads(line) for line in (output / "run" / "refused.jsonl").read_text().splitlines()]
    assert {line["path"] for line in listed} == {skip.path for skip in report.refused}
    metrics = [json.loads(line) for line in (output / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 25 and metrics[-1]["loss"] < metrics[0]["loss"]
    encoder = open_encoder(str(output))
    assert encoder.encode_texts(["a red picture"]).shape == (1, 16)
    assert encoder.spec.digest != open_encoder(str(model)).spec.digest
    photos = encoder.photo_sample()
    assert photos is not None and photos.shape == (report.images, 16)
    assert encoder.caption_centroids() is None, "sixteen different captions say little of others"


def test_a_resumed_run_ends_with_the_same_weights(model: Path, split: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=3)

    class Stopped(Exception):
        pass

    def stop_in_the_second_epoch(stage: object) -> None:
        if stage.name == "epoch 2/3" and stage.done == 2:  # type: ignore[attr-defined]
            raise Stopped

    whole, halved = tiny(model), tiny(model)
    fit(whole, *split, options, tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(halved, *split, options, tmp_path / "halved", progress=stop_in_the_second_epoch)
    resumed = tiny(model)
    fitted = fit(resumed, *split, options, tmp_path / "halved", resume=True)
    assert [epoch.epoch for epoch in fitted.epochs] == [1, 2, 3]
    expected = weights(whole)
    for name, value in weights(resumed).items():
        assert torch.equal(value, expected[name]), name


def test_a_blend_ends_between_old_and_new_weights(model: Path, split: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=2)
    old, new, between = weights(tiny(model)), tiny(model), tiny(model)
    fit(new, *split, options, tmp_path / "new")
    fit(between, *split, replace(options, blend=0.25), tmp_path / "between")
    learned = weights(new)
    changed = 0
    for name, value in weights(between).items():
        if value.is_floating_point() and name != "model.logit_scale":
            torch.testing.assert_close(value, 0.75 * old[name] + 0.25 * learned[name], rtol=1e-4, atol=1e-6)
            changed += not torch.equal(learned[name], old[name])
    assert changed > 10
    with pytest.raises(UsageError, match="blend must be above 0 and at most 1, got 0"):
        replace(options, blend=0.0)


def test_a_run_with_other_settings_is_not_resumed(model: Path, split: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    fit(tiny(model), *split, replace(OPTIONS, epochs=1), tmp_path)
    with pytest.raises(UsageError, match="seed"):
        fit(tiny(model), *split, replace(OPTIONS, epochs=1, seed=1), tmp_path, resume=True)


@pytest.mark.parametrize("loss", ["infonce", "triplet", "sigmoid"])
def test_cached_gradients_equal_plain_ones(model: Path, split: tuple[Pairs, Pairs], tmp_path: Path, loss: str) -> None:
    network = tiny(model)
    feed = ImageFeed(network, split[0].images, ViewOptions(), tmp_path, seed=0, device=torch.device("cpu"))
    batches = Batches(network, split[0], feed, 30, 2, 0, torch.device("cpu"))
    batches.find_words()
    batch = next(batches.epoch(0))
    assert batch.words is not None
    objective = Objective(LossOptions(name=loss))  # type: ignore[arg-type]
    gradients, losses = [], []
    for piece in (None, 7):
        network.zero_grad()
        objective.zero_grad()
        losses.append(backward(network, objective, batch, StepOptions(piece, words_weight=0.5), seed=1))
        both = [*network.named_parameters(), *objective.named_parameters()]
        gradients.append({name: p.grad.clone() for name, p in both if p.grad is not None})
    feed.close()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    for name, plain in gradients[0].items():
        assert torch.allclose(plain, gradients[1][name], atol=1e-5), name


@pytest.mark.parametrize(("learns", "frozen", "learning"), [
    ("heads", ["visual.conv1.weight", "visual.transformer.resblocks.1.ln_1.weight"], ["visual.proj"]),
    ("last:1", ["visual.transformer.resblocks.0.ln_1.weight", "token_embedding.weight"],
     ["visual.transformer.resblocks.1.ln_1.weight", "transformer.resblocks.1.ln_1.weight", "text_projection"]),
    ("last:1,2", ["visual.transformer.resblocks.0.ln_1.weight"], ["transformer.resblocks.0.ln_1.weight"]),
    ("all", [], ["visual.conv1.weight", "token_embedding.weight"]),
])  # fmt: skip
def test_only_what_should_learn_changes(
    model: Path, split: tuple[Pairs, Pairs], tmp_path: Path, learns: str, frozen: list[str], learning: list[str]
) -> None:
    network = tiny(model, learns)
    before = weights(network)
    fit(network, *split, replace(OPTIONS, epochs=1), tmp_path)
    after = weights(network)
    for name in frozen:
        assert torch.equal(before[f"model.{name}"], after[f"model.{name}"]), name
    for name in learning:
        assert not torch.equal(before[f"model.{name}"], after[f"model.{name}"]), name


@pytest.mark.parametrize("learns", ["lora:2", "lora:3,last:1"])
def test_low_rank_updates_become_the_weights(
    model: Path, split: tuple[Pairs, Pairs], tmp_path: Path, learns: str
) -> None:
    plain, network = tiny(model), tiny(model, learns)
    pixels, tokens = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8), torch.ones(2, 12, dtype=torch.int64)
    with torch.no_grad():
        assert torch.equal(plain.images(pixels).vectors, network.images(pixels).vectors), "they start as nothing"
    _, rest = network.parameter_groups()
    blocks = 2 if learns == "lora:2" else 1
    assert len(rest) == 2 * 2 * 4 * blocks, "up and down of two encoders' four matrices a block"
    assert sum(p.numel() for p in rest) < 0.5 * sum(p.numel() for p in plain.parameter_groups()[1])
    fit(network, *split, replace(OPTIONS, epochs=2), tmp_path / "run")
    with torch.no_grad():
        learned = network.images(pixels).vectors, network.texts(tokens).vectors
    network.export(tmp_path)
    merged = tiny(tmp_path)
    assert merged.state_dict().keys() == plain.state_dict().keys(), "a model like any other"
    with torch.no_grad():
        for found, expected in zip((merged.images(pixels), merged.texts(tokens)), learned, strict=True):
            torch.testing.assert_close(found.vectors, expected, atol=1e-5, rtol=0)
        assert not torch.allclose(plain.images(pixels).vectors, learned[0], atol=1e-3)
    first = "model.visual.transformer.resblocks.0.attn.in_proj_weight"
    assert torch.equal(merged.state_dict()[first], plain.state_dict()[first]) is (blocks == 1)
    assert network.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.slow
def test_a_resumed_low_rank_run_ends_with_the_same_weights(
    model: Path, split: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    whole, halved = tiny(model, "lora:2"), tiny(model, "lora:2")
    options = replace(OPTIONS, epochs=2, step=StepOptions(piece=7), accumulate=2)
    fit(whole, *split, options, tmp_path / "whole")

    def stop(stage: object) -> None:
        if stage.name == "epoch 2/2":  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(halved, *split, options, tmp_path / "halved", progress=stop)
    resumed = tiny(model, "lora:2")
    fit(resumed, *split, options, tmp_path / "halved", resume=True)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())


@pytest.mark.slow
def test_training_stops_early_and_keeps_the_best(model: Path, split: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=12, learning_rate=1e-9, encoder_rate=1e-9, patience=2)
    fitted = fit(tiny(model), *split, options, tmp_path)
    scores = [epoch.score for epoch in fitted.epochs]
    assert len(scores) < 12 and scores[fitted.best - 1] == max(scores) and len(scores) == fitted.best + 2


def test_views_depend_on_the_seed_alone(model: Path, split: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    network, rows = tiny(model), np.arange(5)

    def shown(seed: int, epoch: int, cached: int, name: str) -> torch.Tensor:
        options = replace(OPTIONS.views, cached=cached)
        feed = ImageFeed(network, split[0].images, options, tmp_path / name, seed=seed, device=torch.device("cpu"))
        found = feed.rows(rows, epoch)[0]
        feed.close()
        return found

    assert torch.equal(shown(0, 3, 0, "a"), shown(0, 3, 0, "b"))
    assert not torch.equal(shown(0, 3, 0, "a"), shown(0, 4, 0, "a"))
    assert torch.equal(shown(0, 3, 4, "c"), shown(0, 3, 4, "c")) and torch.equal(
        shown(0, 3, 4, "d"), shown(0, 3, 4, "c")
    )


def test_neighbours_share_a_batch(model: Path, split: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    network = tiny(model)
    feed = ImageFeed(network, split[0].images, ViewOptions(cached=1), tmp_path, seed=0, device=torch.device("cpu"))
    batches = Batches(network, split[0], feed, 8, 1, 0, torch.device("cpu"))
    batches.find_neighbours(4)
    seen = torch.cat([batch.groups for batch in batches.epoch(0)]).tolist()
    feed.close()
    assert len(seen) == len(set(seen)) and len(seen) >= len(split[0]) - 8
    with torch.no_grad():
        rows = network.image_rest(feed.rows(np.arange(len(split[0])), 0)).vectors
    alike = rows @ rows.T
    inside = np.mean([float(alike[seen[i], seen[i + 1]]) for i in range(0, len(seen) - 1, 4)])
    assert inside > float(alike.mean())


def test_hard_negatives_come_from_an_index(model: Path, table: Path, tmp_path: Path) -> None:
    from mmsearch.api import Index
    from mmsearch.training.pair_sources import vectors_of_index
    from tests.support.colours import ColourEncoder

    pairs = read_pairs(table)
    pairs = pairs.take(row for row, image in enumerate(pairs.images) if image.path.stem.isdecimal())
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(table.parent)
        index.remove(table.parent / "007.png")
    vectors = vectors_of_index(tmp_path / "index", pairs)
    lengths = np.linalg.norm(vectors, axis=1)
    assert vectors.shape == (100, 4) and lengths[7] == 0 and np.allclose(np.delete(lengths, 7), 1, atol=1e-3)
    network = tiny(model)
    feed = ImageFeed(network, pairs.images, ViewOptions(), tmp_path, seed=0, device=torch.device("cpu"))
    batches = Batches(network, pairs, feed, 8, 1, 0, torch.device("cpu"))
    batches.find_neighbours(4, vectors)
    order = batches._order(np.random.default_rng(0))
    feed.close()
    assert sorted(order.tolist()) == list(range(100))
    colour = order % len(COLOURS)  # images of one colour are hard to tell apart, and lie together now
    assert np.mean(colour[1:] == colour[:-1]) > 0.5
    assert batches._near is not None and set(batches._near[7].tolist()) == {7} and 7 not in batches._near[[15, 23]]
    with pytest.raises(UsageError, match="holds none of the"):
        vectors_of_index(tmp_path / "index", pairs.take([7]))
    options = replace(OPTIONS, epochs=1, neighbours=4)
    request = TrainRequest(table, tmp_path / "out", str(model), held_out=0.2, negatives=tmp_path / "index")
    assert len(train(request, options).fitted.epochs) == 1
    config = json.loads((tmp_path / "out" / "run" / "config.json").read_text())
    assert len(config["mined"]) == 64


@pytest.mark.slow
def test_the_result_knows_where_its_captions_and_photos_lie(model: Path, table: Path, tmp_path: Path) -> None:
    """Near every caption there is a middle, and what lies beside the weights is of these weights."""
    folder = tmp_path / "copied"
    shutil.copytree(model, folder)
    paths = sorted(table.parent.glob("[0-9]*.png"))
    captions = [f"{number} {colour} {thing}" for number in range(20) for colour in COLOURS for thing in ("dog", "car")]
    pairs = Pairs(tuple(map(ImageSource, paths)), tuple(tuple(captions[n::100]) for n in range(100)))
    write_hubness_samples(folder, pairs, None)
    for texts_only in (False, True):
        encoder = open_encoder(str(folder), texts_only=texts_only)
        centroids, photos = encoder.caption_centroids(), encoder.photo_sample()
        assert centroids is not None and centroids.shape == (len(captions) // 8, 16) and photos is not None
        vectors = encoder.encode_texts(captions)
        nearest, other = (vectors @ centroids.T).max(axis=1), (vectors @ np.roll(centroids, 3, axis=1).T).max(axis=1)
        assert nearest.mean() > 0.9 > other.mean()
        pictures = encoder.encode_images([Image.open(path).convert("RGB") for path in paths])
        assert (pictures * photos).sum(axis=1).min() > 0.995
    (folder / "open_clip_pytorch_model.bin").unlink()
    other_weights = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    torch.save(other_weights.state_dict(), folder / "open_clip_pytorch_model.bin")
    assert open_encoder(str(folder)).caption_centroids() is None is open_encoder(str(folder)).photo_sample()


def test_the_schedule_rises_and_falls() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9] == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True) and factors[-1] < 0.01


@pytest.mark.parametrize("text", ["some", "last:0", "last:", "last:1,0", "last:1,2,3", "lora:", "lora:0", "lora:4,all"])
def test_senseless_freezing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Freezing.parse(text)


def test_the_command_trains_and_tells(model: Path, table: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from mmsearch.cli.commands import app

    where = ["train", str(table), "--output", str(tmp_path / "out"), "--model", str(model), "--learns", "all"]
    how = ["--epochs", "1", "--batch-size", "24", "--held-out", "0.2", "--device", "cpu", "--threads", "1"]
    told = json.loads(CliRunner().invoke(app, [*where, *how, "--json"], catch_exceptions=False).stdout)
    assert told["images"] + told["dev_images"] == 100 and len(told["refused"]) == 10
    assert told["before"].keys() == told["after"].keys() and isinstance(told["is_better"], bool)
    by_old_name = ["--resume", "--tower-rate", "2e-5"]
    again = CliRunner().invoke(app, [*where, *how, *by_old_name], catch_exceptions=False)
    assert "refused    10 rows" in again.stdout and "with: mmsearch index FOLDER --model" in again.stdout
    assert "--tower-rate is called --encoder-rate now" in again.stderr
    for wrong, reason in ((["--loss", "other"], "no such loss"), (["--blend", "0"], "blend must be above 0")):
        with pytest.raises(UsageError, match=reason):
            CliRunner().invoke(app, [*where, *wrong], catch_exceptions=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    with pytest.raises(UsageError, match="not empty"):
        CliRunner().invoke(app, [*where[:3], str(tmp_path / "full"), *where[4:], *how], catch_exceptions=False)
