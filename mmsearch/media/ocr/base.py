"""The contract of a text reader: a picture in, the lines of text that stand in it out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


class TextReader(ABC):
    """Reads what is written in pictures. Called from one thread at a time."""

    name: str
    """Names the reader and its version; pictures that one reader has read are not read by it again."""
    shorter_side = 1200
    """Pixels of the shorter side that it can make use of; larger pictures are handed to it smaller."""

    @abstractmethod
    def read(self, image: Image) -> list[str]:
        """The lines of an upright RGB picture, in reading order; empty where there is no text.

        Whatever it raises is the picture's own failure: it is recorded with its reason, and the next one is read.
        """
