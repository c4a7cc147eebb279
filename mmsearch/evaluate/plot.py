"""hit@k over k as a picture, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mmsearch.core.errors import UsageError
from mmsearch.evaluate.runs import Run

SIZE, LEFT, TOP, RIGHT, BOTTOM = (760, 480), 60, 40, 20, 50
COLOURS = ((31, 119, 180), (214, 100, 20), (44, 140, 60), (150, 60, 160))


def hit_curve(run: Run, most: int = 100) -> list[float]:
    """hit@1 … hit@``most`` from the places of the first right answers."""
    ranks = list(run.per_question["rank"].values())
    return [sum(rank is not None and rank <= k for rank in ranks) / len(ranks) for k in range(1, most + 1)]


def draw_run(runs: Sequence[tuple[str, Run]], path: Path, most: int = 100) -> None:
    """Draws hit@k of one or several named runs over k (logarithmic) into an image file.

    Raises:
        UsageError: the file cannot be written.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", SIZE, (255, 255, 255))
    pen = ImageDraw.Draw(image)
    width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM

    def at(k: float, share: float) -> tuple[float, float]:
        return LEFT + width * math.log(k) / math.log(most), TOP + height * (1 - share)

    for tenth in range(0, 11, 2):
        y = at(1, tenth / 10)[1]
        pen.line((LEFT, y, SIZE[0] - RIGHT, y), fill=(225, 225, 225))
        pen.text((LEFT - 34, y - 6), f"{10 * tenth:3d} %", fill=(60, 60, 60))
    for k in (1, 2, 5, 10, 20, 50, 100):
        if k <= most:
            x = at(k, 0)[0]
            pen.line((x, TOP, x, TOP + height), fill=(235, 235, 235))
            pen.text((x - 6, TOP + height + 6), str(k), fill=(60, 60, 60))
    for number, (name, run) in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        points = [at(k, share) for k, share in enumerate(hit_curve(run, most), start=1)]
        pen.line(points, fill=colour, width=3)
        pen.text((LEFT + 10, TOP + 8 + 16 * number), f"{name}: gallery {run.gallery:,}, {run.recipe}", fill=colour)
    pen.text((LEFT, 14), "hit@k: share of questions with a right answer among the first k", fill=(20, 20, 20))
    pen.text((LEFT + width // 2, SIZE[1] - 20), "k", fill=(20, 20, 20))
    try:
        image.save(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the plot cannot be written to {path}: {error}") from error
