"""Exported encoders of open_clip and transformers against the models they were exported of."""

from __future__ import annotations

import dataclasses
import errno
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import VectorError
from mmsearch.models.encoders import exported, machine_plan, open_encoder
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.exported import ExportedEncoder
from mmsearch.models.encoders.exports import Exports
from mmsearch.models.encoders.image_export import IMAGE_EXPORTS, Graph, find_image_export
from mmsearch.models.encoders.machine_plan import Plan
from mmsearch.models.encoders.preparation import Preparation
from mmsearch.models.encoders.torch_encoder import TorchEncoder
from tests.models.encoders.test_open_clip import CLIP, PHOTOS, SIGLIP, SQUASH, TEXTS, photo, save_model
from tests.support.dual_encoders import save_dual_encoder

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

OPTIONS = EncoderOptions(device="cpu")
MOBILE = {
    **CLIP,
    "vision_cfg": {"timm_model_name": "fastvit_t8", "timm_pool": "avg", "timm_proj": None, "image_size": 64},
    "custom_text": True,
}
OPEN_CLIP: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "clip": (CLIP, None), "siglip": (SIGLIP, SQUASH), "mobile": (MOBILE, None),
}  # fmt: skip
OF_TRANSFORMERS = ("hf-clip", "hf-siglip", "hf-siglip2_fixed", "hf-chinese_clip")


pytestmark = pytest.mark.usefixtures("cached")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name in ("siglip", "hf-clip") else pytest.mark.slow)  # seconds for each export
        for name in (*OPEN_CLIP, *OF_TRANSFORMERS)
    ],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchEncoder, Any]:
    """The model on torch, and what opens once it was exported."""
    name = request.param
    if name.startswith("hf-"):
        pytest.importorskip("transformers")
    return exported_pair(name, tmp_path_factory.mktemp("models") / name)


def exported_pair(name: str, folder: Path) -> tuple[TorchEncoder, Any]:
    """A small model with random weights in ``folder``: on torch, and as it opens once it was exported."""
    if name.startswith("hf-"):
        save_dual_encoder(folder, name.removeprefix("hf-"))
    else:
        save_model(folder, *OPEN_CLIP[name])
    whole = open_encoder(str(folder), OPTIONS)
    assert isinstance(whole, TorchEncoder)
    whole.prepare_for_queries()
    return whole, open_encoder(str(folder), OPTIONS)


def test_vectors_of_an_export_are_those_of_the_model(pair: tuple[TorchEncoder, Any]) -> None:
    whole, opened = pair
    assert isinstance(opened, ExportedEncoder)
    assert opened.spec == whole.spec and opened.input_size == whole.input_size
    assert opened.max_text_tokens == whole.max_text_tokens
    for picture in PHOTOS:
        np.testing.assert_array_equal(opened.prepare_image(picture), whole.prepare_image(picture))
    rows = opened.encode_images(PHOTOS)
    assert rows.dtype == np.float32 and (rows * whole.encode_images(PHOTOS)).sum(axis=1).min() >= 0.9999
    assert (rows @ rows.T)[~np.eye(len(rows), dtype=bool)].min() < 0.999, "these weights tell pictures apart"
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    texts = [*TEXTS, "two red dog", "山 湖"] * 6
    assert (opened.encode_texts(texts) * whole.encode_texts(texts)).sum(axis=1).min() >= 0.9999
    assert [opened.count_tokens(text) for text in texts] == [whole.count_tokens(text) for text in texts]
    assert opened.encode_texts([]).shape == opened.encode_images([]).shape == (0, whole.spec.dim)
    assert opened._whole is None, "nothing of this needed the model itself"


def test_a_row_does_not_depend_on_its_batch(pair: tuple[TorchEncoder, Any]) -> None:
    _, opened = pair
    pixels = np.stack([opened.prepare_image(photo(90, 70, seed)) for seed in range(9)])
    alone = np.concatenate([opened.encode_prepared(pixels[i : i + 1]) for i in range(9)])
    np.testing.assert_allclose(opened.encode_prepared(pixels), alone, atol=2e-6)
    with pytest.raises(VectorError, match=r"expected \(n, \d+, \d+, 3\) uint8"):
        opened.encode_prepared(pixels.astype(np.float32))


def test_every_plan_gives_the_same_rows(pair: tuple[TorchEncoder, Any]) -> None:
    whole, opened = pair
    found = find_image_export(whole.files)
    assert found is not None
    pixels = np.stack([opened.prepare_image(photo(80, 90, seed)) for seed in range(7)])
    expected = opened.encode_prepared(pixels)
    for plan in (Plan(1, 1, 1), Plan(2, 3, 1), Plan(1, 2, 3)):
        np.testing.assert_allclose(Graph(found.graph, plan).run(pixels), expected, atol=2e-6)


@pytest.mark.parametrize("name", ["siglip", "hf-clip"])
def test_images_and_texts_of_an_export_import_no_torch(name: str, tmp_path: Path) -> None:
    whole, _ = exported_pair(name, tmp_path / name)
    code = (
        "import sys; from PIL import Image\n"
        "from mmsearch.models.encoders import open_encoder\n"
        f"encoder = open_encoder({whole.spec.name!r})\n"
        "rows = encoder.encode_images([Image.new('RGB', (50, 40), (200, 30, 30))])\n"
        "print(rows.shape == encoder.encode_texts(['a photo of a dog']).shape == (1, encoder.spec.dim))\n"
        f"open_encoder({whole.spec.name!r}, texts_only=True).encode_texts(['a dog'])\n"
        "heavy = ('torch', 'torchvision', 'timm', 'open_clip', 'transformers')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    said = subprocess.check_output([sys.executable, "-W", "error", "-c", code], text=True, stderr=subprocess.STDOUT)
    assert said.splitlines() == ["True", "[]"]


@pytest.mark.slow
def test_a_second_index_imports_no_torch(tmp_path: Path) -> None:
    """As whole processes of the command line: the first run leaves what all later ones need."""
    folder, photos = save_model(tmp_path / "clip", {**CLIP, "embed_dim": 28}), tmp_path / "photos"
    photos.mkdir()
    code = (
        "import sys; from mmsearch.cli import main\n"
        f"sys.argv = ['mmsearch', 'index', {str(photos)!r}, '--index', {str(tmp_path / 'index')!r}, *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "finally:\n    print('\\n', [m for m in ('torch', 'open_clip', 'transformers') if m in sys.modules])"
    )
    said = []
    for run, options in enumerate((["--model", str(folder), "--device", "cpu"], ["--device", "cpu"])):
        photo(60, 50, run).save(photos / f"{run}.png")
        command = [sys.executable, "-W", "error", "-c", code, *options]
        said.append(subprocess.check_output(command, text=True, stderr=subprocess.STDOUT).splitlines()[-1].strip())
    assert said[0].startswith("['torch', 'open_clip'") and said[1] == "[]"
    with Index.open(tmp_path / "index") as index:
        assert index.status()["documents"]["image"] == 2


def test_the_text_encoder_opens_with_the_first_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, first = exported_pair("clip", tmp_path / "clip")
    expected = first.encode_texts(TEXTS)
    opened = open_encoder(whole.spec.name, OPTIONS)
    assert isinstance(opened, ExportedEncoder)
    assert opened.encode_images(PHOTOS[:1]).shape == (1, whole.spec.dim) and opened.count_tokens("a dog") > 2
    assert opened._texts._opened is None
    np.testing.assert_array_equal(opened.encode_texts(TEXTS), expected)
    assert opened._texts._opened is not None and opened._whole is None

    cannot = open_encoder(whole.spec.name, OPTIONS)
    assert isinstance(cannot, ExportedEncoder)
    monkeypatch.setattr(cannot._texts, "_graph", tmp_path / "missing.onnx")  # as a graph that this machine cannot run
    for _ in range(2):
        assert (cannot.encode_texts(TEXTS) * expected).sum(axis=1).min() >= 0.9999
    assert caplog.text.count("cannot be used, torch goes on") == 1
    assert cannot._whole is not None and cannot._images is not None


def test_a_damaged_export_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, _ = exported_pair("clip", tmp_path / "clip")
    directory = IMAGE_EXPORTS.directory(whole.files)
    for name, content in (("image.onnx", b"no graph"), ("image.onnx.data", None), ("image.json", b"{")):
        if content is None:
            (directory / name).unlink()
        else:
            (directory / name).write_bytes(content)
        assert find_image_export(whole.files) is None
        again = open_encoder(whole.spec.name, OPTIONS)
        assert isinstance(again, TorchEncoder)
        again.prepare_for_queries()
        assert isinstance(open_encoder(whole.spec.name, OPTIONS), ExportedEncoder)
    assert "is damaged and is made again" in caplog.text
    assert not list(directory.parent.glob("new-*"))


def test_a_full_disk_is_one_sentence_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = exported_pair("clip", tmp_path / "clip")
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))

    def full(_: Path) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    exports = Exports("some", "some.json", "the image encoder")
    with caplog.at_level(logging.WARNING):
        assert exports.make(whole.files, full) is None
    assert [record.message for record in caplog.records if record.name.startswith("mmsearch")] == [
        f"the image encoder of {whole.spec.name} cannot be exported, torch goes on: [Errno 28] No space left on device"
    ]
    assert list((tmp_path / "cache" / "some").iterdir()) == []
    assert exports.make(whole.files, lambda _: {"spec": dataclasses.asdict(whole.spec)}) is not None


def test_an_export_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path / "clip", {**CLIP, "embed_dim": 20})
    monkeypatch.setattr(Graph, "_rows", lambda _, pixels: np.full((len(pixels), 20), 20**-0.5, dtype=np.float32))
    whole = open_encoder(str(folder), OPTIONS)
    whole.prepare_for_queries()
    assert find_image_export(whole.files) is None  # type: ignore[attr-defined]
    assert isinstance(open_encoder(str(folder), OPTIONS), TorchEncoder)


def test_a_long_run_goes_over_to_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_encoder(str(save_model(tmp_path / "clip", {**CLIP, "embed_dim": 12})), OPTIONS)
    assert isinstance(encoder, TorchEncoder)
    pixels = np.stack([encoder.prepare_image(photo(50, 40, seed)) for seed in range(32)])
    first = encoder.encode_prepared(pixels)
    encoder.encode_prepared(pixels)
    monkeypatch.setattr(encoder, "_image_encoder", None)  # whoever still went to torch would fail
    np.testing.assert_allclose(encoder.encode_prepared(pixels), first, atol=1e-5)


def test_with_a_gpu_or_torch_compile_images_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "may_have_gpu", lambda: True)
    chosen = {device: exported.runs_exported(EncoderOptions(device=device)) for device in ("auto", "cpu", "cuda")}  # type: ignore[arg-type]
    assert chosen == {"auto": False, "cpu": True, "cuda": False}
    assert not exported.runs_exported(EncoderOptions(device="cpu", compile=True))


def test_a_naflex_model_stays_with_torch(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    _, opened = exported_pair("hf-siglip2", tmp_path / "naflex")
    assert isinstance(opened, TorchEncoder) and opened.encode_images(PHOTOS[:2]).shape[0] == 2


def test_what_was_measured_is_kept_and_measured_again_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path))
    opened: list[Plan] = []

    class Runs:
        def __init__(self, _: Path, plan: Plan) -> None:
            opened.append(plan)

        def run(self, pixels: np.ndarray) -> np.ndarray:
            return pixels

    graph = tmp_path / "model" / "image.onnx"
    first = machine_plan.plan_for(graph, (4, 4, 3), Runs, OPTIONS)
    tried = len(opened)
    assert tried >= 2 and first.rate > 0 and machine_plan.kept_rate(graph) == first.rate
    assert machine_plan.plan_for(graph, (4, 4, 3), Runs, OPTIONS) == first and len(opened) == tried
    monkeypatch.setattr(machine_plan, "_processor", lambda: "another processor")
    machine_plan.plan_for(graph, (4, 4, 3), Runs, OPTIONS)
    assert len(opened) == 2 * tried
    assert machine_plan.plan_for(graph, (4, 4, 3), Runs, EncoderOptions(threads=1)).threads == 1
    (tmp_path / "machine_plans.json").write_text('{"' + str(graph) + '": {"threads": 0}}')
    assert machine_plan.plan_for(graph, (4, 4, 3), Runs, OPTIONS).threads >= 1


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    size=st.sampled_from([16, 31, (20, 28), (33, 17)]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill=st.sampled_from([0, 7]),
)
def test_preparation_equals_the_transforms_of_open_clip(
    width: int, height: int, mode: str, size: Any, interpolation: str, fill: int
) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    if max(width, height) > 12 * min(width, height):
        return  # what a crop cuts off anyway is cut off before
    cfg = {"size": size, "resize_mode": mode, "interpolation": interpolation, "fill_color": fill}
    picture = photo(width, height)
    expected = picture
    try:
        for step in image_transform_v2(PreprocessCfg(**cfg), is_train=False).transforms[:-2]:
            expected = step(expected)
    except ValueError:
        return  # one side would be 0 pixels long
    np.testing.assert_array_equal(Preparation.of_open_clip(cfg)(picture), np.asarray(expected))


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 200), height=st.integers(1, 200), shorter=st.sampled_from([24, 33]), crops=st.booleans(),
    resample=st.sampled_from([2, 3]),
)  # fmt: skip
def test_preparation_equals_the_image_processors_of_transformers(
    width: int, height: int, shorter: int, crops: bool, resample: int
) -> None:
    transformers = pytest.importorskip("transformers")
    if max(width, height) > 12 * min(width, height):
        return
    kind = next(
        getattr(transformers, name)
        for name in ("CLIPImageProcessorPil", "CLIPImageProcessor")
        if hasattr(transformers, name)
    )
    size = {"shortest_edge": shorter} if crops else {"height": 20, "width": 24}
    processor = kind(
        size=size, do_center_crop=crops, crop_size={"height": 20, "width": 24}, resample=resample, do_resize=True
    )
    preparation = Preparation.of_transformers(processor)
    assert preparation is not None
    picture = photo(width, height)
    given_ = processor(images=picture, do_rescale=False, do_normalize=False, return_tensors="np")
    expected = np.asarray(given_["pixel_values"][0]).transpose(1, 2, 0)
    np.testing.assert_array_equal(preparation(picture), expected)


def test_a_processor_that_does_more_is_not_imitated() -> None:
    class Processor:
        do_resize, do_center_crop, do_pad, resample = True, False, True, 3
        size = {"height": 8, "width": 8}

    assert Preparation.of_transformers(Processor()) is None
    Processor.do_pad = False
    assert Preparation.of_transformers(Processor()) is not None
    assert Preparation.of_transformers(Processor())(Image.new("L", (9, 5))).shape == (8, 8, 3)  # type: ignore[misc]
