"""Recognisers of speech: sound to words with times. Importing this package loads no model.

base      the contract             registry  which one a name means
whisper   the one of the extra     voice     where anybody speaks
"""

from mmsearch.models.speech.base import SpeechRecogniser
from mmsearch.models.speech.registry import SPEECH_MODELS, can_listen, has_recogniser, open_recogniser

__all__ = ["SPEECH_MODELS", "SpeechRecogniser", "can_listen", "has_recogniser", "open_recogniser"]
