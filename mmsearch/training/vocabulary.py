"""Features as a picture of a class would have them, made up from a classifier's weights: no picture is needed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PROBABILITY = 0.7
"""What the classifier says of the plain made-up picture of a class."""


class Vocabulary:
    """The classes of a linear classifier as directions in the space of its features.

    Fisher's discriminant has weights w = S⁻¹ (m_c − m), S being the covariance of the features within a class and m
    their mean. Read backwards, S w is where pictures of a class lie, seen from the mean of all. S is estimated from
    ``features`` (n, width), of any pictures. Only the first ``classes`` have names. The step is as long as the
    classifier needs to be sure.
    """

    def __init__(self, features: Tensor, classifier: nn.Linear, classes: int) -> None:
        self.mean = features.mean(0)
        centred = features - self.mean
        weights = classifier.weight.detach()
        # What all classes share says nothing about any of them, and a softmax does not see it.
        directions = (weights - weights.mean(0))[:classes] @ (centred.T @ centred / len(features))
        self.steps = directions / directions.norm(dim=1, keepdim=True)
        self.steps *= self._lengths(classifier)[:, None]

    def _lengths(self, classifier: nn.Linear) -> Tensor:
        """By bisection: how far to go from the mean until the class has the wanted probability."""
        low, high = (torch.full((len(self.steps),), end, device=self.steps.device) for end in (0.0, 50.0))
        for _ in range(12):
            middle = (low + high) / 2
            logits = classifier((self.mean + middle[:, None] * self.steps).clamp(min=0))
            sure = logits.softmax(1).diagonal() > PROBABILITY
            low, high = torch.where(sure, low, middle), torch.where(sure, middle, high)
        return high

    def pictures(self, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """``count`` classes at random, and features (count, width) of each, in the surroundings that random rows of
        ``features`` (n, width) show.
        """
        count = min(count, len(self.steps))
        classes = torch.randperm(len(self.steps))[:count]
        rows = torch.randint(len(features), (count,))
        share = torch.rand(count, 1).to(features.device)
        strength = (0.5 + torch.rand(count, 1)).to(features.device)
        surroundings = share * features[rows] + (1 - share) * self.mean
        return classes, (surroundings + strength * self.steps[classes]).clamp(min=0)
