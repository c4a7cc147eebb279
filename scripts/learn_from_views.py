"""Makes version 4 of the built-in encoder: ``python scripts/learn_from_views.py DATA VERSION3 OUTPUT [SEEN]``.

DATA holds ``flickr8k/`` (images, captions.tsv, train.txt) and ``coco/images``; VERSION3 is what
``scripts/learn_objects.py`` wrote. OUTPUT gets the encoder; the features of all looks stay in the folder SEEN. About
ten minutes on two cores. No label is used, and what learns does so in closed form.

- **Self-training.** The mean of what the encoder says of a picture as it is, of it mirrored and of its middle finds
  more than one look does. A ridge regression brings one look nearer to that mean, on the training photos of Flickr8k
  and on COCO's photos, which have no captions (as in Xie et al., 2020, "Self-training with Noisy Student improves
  ImageNet classification", https://arxiv.org/abs/1911.04252, without the noise). It becomes a part of the linear map of
  the projection, so pictures take as long as before.
- **Hubs.** Pictures near to captions in general get a shorter joint half; see `ImageNet.vectors`. What is usual is the
  mean of COCO's photos.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from fit_second_look import captions_of
from learn_objects import look
from object_layer import ridge_regression
from PIL import Image
from torch import nn
from torch.nn import functional

from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.views import VIEWS, further_views
from mmsearch.training.builtin_model import BuiltinModel
from mmsearch.training.builtin_modules import FEATURES, unit
from mmsearch.training.hubness import GROUPS
from mmsearch.training.options import BuiltinModelOptions, Freezing

RIDGE = 16_000.0
"""Penalty on the squared weights, for features of spread 1; from 1,000 to 16,000 it makes little difference."""
AS_INPUTS = 2
"""The first looks, which keep the whole picture, learn."""


def looks(network: BuiltinModel, files: list[Path], seen: Path | None) -> FloatArray:
    """(n, VIEWS, 1280) features of pictures as they are, mirrored, and of their middles."""
    if seen is not None and seen.exists():
        found: FloatArray = np.load(seen)
        return found
    rows = np.zeros((len(files), VIEWS, FEATURES), dtype=np.float32)
    for place, file in enumerate(files):
        image = Image.open(file).convert("RGB")
        rows[place] = look(network, [image, *further_views(image)])
        sys.stderr.write(f"\r{place + 1} of {len(files)}")
    if seen is not None:
        seen.parent.mkdir(parents=True, exist_ok=True)
        np.save(seen, rows)
    return rows


def learn_from_views(network: BuiltinModel, features: FloatArray) -> None:
    """Moves the projection of the image encoder; ``features`` (n, VIEWS, 1280)."""
    head = network.image.head
    with torch.no_grad():
        rows = torch.from_numpy(features) * head.gain + head.offset
        said = head.straight(rows) + head.down(functional.gelu(head.up(rows)))
        mean = unit(unit(said).sum(1, keepdim=True))
        wanted = mean * said.norm(dim=-1, keepdim=True) - said
        inputs, targets = (part[:, :AS_INPUTS].flatten(0, 1).double().numpy() for part in (rows, wanted))
        weights, bias = ridge_regression(inputs, targets, RIDGE)
        head.straight.weight += torch.from_numpy(weights.astype(np.float32))
        head.straight.bias += torch.from_numpy(bias.astype(np.float32))


def know_hubs(network: BuiltinModel, captions: list[str], features: FloatArray) -> None:
    """``features`` (n, 1280) of pictures that are usual."""
    image = network.image
    image.captions = nn.Linear(image.head.straight.out_features, GROUPS).requires_grad_(False)
    image.captions.bias.zero_()
    network.settle(captions)
    with torch.no_grad():
        usual = image.hubness(image.head(torch.from_numpy(features))).mean()
    image.captions.bias.fill_(-usual)


def main(data: Path, start: Path, output: Path, seen: Path | None) -> None:
    """Writes ``output``."""
    network = BuiltinModel(start, Freezing.parse("heads"), BuiltinModelOptions())
    network.eval().requires_grad_(False)
    flickr = data / "flickr8k"
    train, captions = (flickr / "train.txt").read_text(encoding="utf-8").split(), captions_of(flickr)
    files = {
        "coco": sorted((data / "coco" / "images").iterdir()), "flickr": [flickr / "images" / name for name in train]
    }  # fmt: skip
    found = [looks(network, of, None if seen is None else seen / f"{name}.npy") for name, of in files.items()]
    learn_from_views(network, np.concatenate(found))
    know_hubs(network, [caption for name in train for caption in captions[name]], found[0][:, 0])
    output.mkdir(parents=True, exist_ok=True)
    network.export(output)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit("usage: python scripts/learn_from_views.py DATA VERSION3 OUTPUT [SEEN]")
    given = [Path(argument) for argument in sys.argv[1:]]
    main(given[0], given[1], given[2], given[3] if len(given) > 3 else None)
