"""What a picture shows beside its main class: a linear layer learns from an object detector what it would find.

The detector is needed only here. Its probabilities on unlabelled pictures are the targets of a ridge regression from
the image encoder's features (a teacher's soft targets carry over what it knows of things that few pictures show: Hinton
et al., 2015, "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531). Solved in closed form,
so there is no seed and nothing to stop.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mmsearch.core.errors import UsageError
from mmsearch.models.encoders.base import FloatArray
from mmsearch.training.builtin_modules import FEATURES, WIDTH, ImageNet

RIDGE = 1500.0
"""Penalty on the squares of the weights, for features of spread 1: as if so many more pictures showed nothing."""
LEAST, MOST = 0.005, 0.995
"""Probabilities are held between these before their logits are taken."""
NOTABLE = 1.0
"""An object counts where it is found by more than so many spreads above its mean over the training pictures."""
WEIGHT = 0.2
"""What one spread above that adds of the object's name, ConSE's mean of classes having length 1."""


def fit_objects(image: ImageNet, features: FloatArray, probabilities: FloatArray, names: FloatArray) -> None:
    """Gives ``image`` its layer of objects.

    Args:
        image: the encoder; what it had of objects is replaced.
        features: (n, 1280), of n pictures, from this encoder.
        probabilities: (n, objects) in 0..1, what the detector says of the same pictures.
        names: (objects, 384), the sentence vectors of the objects' names.

    Raises:
        UsageError: the arrays do not fit each other.
    """
    count, objects = probabilities.shape
    if features.shape != (count, FEATURES) or names.shape != (objects, WIDTH):
        raise UsageError(
            f"features must be ({count}, {FEATURES}) and names ({objects}, {WIDTH}) for probabilities of shape "
            f"({count}, {objects}), found {features.shape} and {names.shape}"
        )
    weights, bias = ridge_regression(features, _logits(probabilities), RIDGE)
    found = features.astype(np.float64) @ weights.T + bias
    spread = found.std(0) + 1e-6
    # What all names share says nothing about any picture.
    directions = names - names.mean(0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    image.objects = nn.Linear(FEATURES, objects).requires_grad_(False)
    image.objects.weight.copy_(_tensor(weights / spread[:, None]))
    image.objects.bias.copy_(_tensor((bias - found.mean(0)) / spread - NOTABLE))
    image.object_names = nn.Parameter(_tensor(WEIGHT * directions), requires_grad=False)


def ridge_regression(
    inputs: FloatArray, targets: npt.NDArray[np.float64], penalty: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights (targets, inputs) and bias (targets,) from n rows of both.

    They minimise the squared errors plus ``penalty`` times the squared weights of inputs of mean 0 and spread 1.
    """
    mean, spread = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64) + 1e-3
    rows, middle = (inputs - mean) / spread, targets.mean(0)
    square = rows.T @ rows + penalty * np.eye(rows.shape[1])
    weights = np.linalg.solve(square, rows.T @ (targets - middle)).T / spread
    return weights, middle - weights @ mean


def _logits(probabilities: FloatArray) -> npt.NDArray[np.float64]:
    held = np.clip(probabilities.astype(np.float64), LEAST, MOST)
    return np.log(held / (1 - held))


def _tensor(values: npt.NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
