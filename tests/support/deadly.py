"""An encoder that ends the process in which it runs, as a broken library does; opened by name in processes of Ray."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.colours import ColourEncoder


class DeadlyEncoder(ColourEncoder):
    """Dies of every white picture; of black ones once, where ``MMSEARCH_TEST_DEATHS`` names a folder to note it in."""

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        brightness = np.asarray(image.convert("L")).mean()
        deaths = os.environ.get("MMSEARCH_TEST_DEATHS")
        note = Path(deaths) / "died" if deaths else None
        if brightness > 235 or (brightness < 25 and note is not None and not note.exists()):
            if note is not None and brightness < 25:
                note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare_image(image)
