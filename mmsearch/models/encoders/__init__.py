"""Encoders: images and texts → vectors of one space. Importing this package loads nothing heavy.

base             the contracts: Encoder, EncoderOptions, EncoderFamily
registry         which encoder a name means; open_encoder
catalogue        the recommended models               weights    files and digests of weights on this machine
builtin          the one that ships, on ONNX Runtime  views      any encoder, looking at each picture three times
open_clip        models of open_clip, on torch        transformers  dual encoders of Hugging Face transformers
torch_encoder    what the last two share              pull       fetching a model from a hub
"""

from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder, EncoderFamily, EncoderOptions
from mmsearch.models.encoders.registry import open_encoder

__all__ = ["Encoder", "EncoderFamily", "EncoderOptions", "EncoderSpec", "open_encoder"]
