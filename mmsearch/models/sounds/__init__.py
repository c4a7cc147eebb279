"""Encoders of sounds and texts: what can be heard, into one space with words. Importing this package loads no model.

base      the contract             registry  which one a name means
clap      those of transformers
"""

from mmsearch.models.sounds.base import SoundEncoder
from mmsearch.models.sounds.registry import SUGGESTED_SOUNDS, is_sound_encoder, open_sound_encoder

__all__ = ["SUGGESTED_SOUNDS", "SoundEncoder", "is_sound_encoder", "open_sound_encoder"]
