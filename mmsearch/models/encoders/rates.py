"""How many images a second a model encodes on this machine's CPU: as measured before, else estimated."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from mmsearch.core.errors import EncoderError
from mmsearch.core.system import usable_cores
from mmsearch.models.encoders.catalogue import ModelRow
from mmsearch.models.encoders.machine_plan import kept_rate, machine
from mmsearch.models.encoders.weights import add_to_json, cache_dir, read_json

_SHARE = 0.8
"""Of what this machine reaches when it multiplies small matrices, about what an encoder reaches."""
_SIDE = 64
"""Of the matrices: numpy multiplies them on one core, which then does not wait for another that is busy."""
_PRODUCTS, _SECONDS = 64, 0.25
"""Products in one measurement, and how long measuring goes on."""


@dataclass(frozen=True)
class Rate:
    """``images_per_s``; ``measured``: with this model on this machine, else estimated."""

    images_per_s: float
    measured: bool

    def time_for(self, images: int) -> str:
        """``5,000 photos: about 4 minutes``."""
        seconds = images / self.images_per_s
        for unit, size in (("hour", 3600), ("minute", 60), ("second", 1)):
            if seconds >= 1.5 * size or unit == "second":
                count = max(1, round(seconds / size))
                return f"{images:,} photos: about {count:,} {unit}{'' if count == 1 else 's'}"
        raise AssertionError


def rate_of(row: ModelRow) -> Rate:
    """Of one model; at the first call, a quarter of a second tells how fast this machine multiplies."""
    measured = _measured(row)
    if measured is not None:
        return Rate(measured, True)
    return Rate(_SHARE * _machine_gflops() / row.image_gflops, False)


def _measured(row: ModelRow) -> float | None:
    from mmsearch.models.encoders.image_export import find_image_export
    from mmsearch.models.encoders.open_clip_files import locate

    if not row.repo:
        kept = read_json(cache_dir() / "tried_models.json").get(f"{row.name} on {machine(usable_cores())}")
        return float(kept) if isinstance(kept, (int, float)) and kept > 0 else None
    if not row.present:
        return None
    try:
        found = find_image_export(locate(row.name))
    except (EncoderError, OSError):
        return None
    return None if found is None else kept_rate(found.graph)


def keep_rate(name: str, images_per_s: float) -> None:
    """Keeps what `mmsearch models test` measured of a model, if it is the most so far: another program may have been at
    work the last time.
    """
    key = f"{name} on {machine(usable_cores())}"
    kept = read_json(cache_dir() / "tried_models.json").get(key)
    if not isinstance(kept, (int, float)) or images_per_s > kept:
        add_to_json(cache_dir() / "tried_models.json", key, round(images_per_s, 2))


@cache
def _machine_gflops() -> float:
    """10⁹ operations a second of products of float32 matrices on all cores: the most that was ever seen here.

    In processor time: by the clock, other programs that are at work would slow it down.
    """
    key = f"matrices on {machine(usable_cores())}"
    kept = read_json(cache_dir() / "machine_gflops.json").get(key)
    most = float(kept) if isinstance(kept, (int, float)) else 0.0
    matrix = np.ones((_SIDE, _SIDE), dtype=np.float32)
    started, best = time.perf_counter(), float("inf")
    while time.perf_counter() - started < _SECONDS or best == float("inf"):
        before = time.thread_time()
        for _ in range(_PRODUCTS):
            matrix @ matrix
        spent = time.thread_time() - before
        if spent > 0:  # some systems count in steps of many milliseconds
            best = min(best, spent)
    gflops = round(2 * _PRODUCTS * _SIDE**3 / best * usable_cores() / 1e9, 1)
    if gflops > most:
        add_to_json(cache_dir() / "machine_gflops.json", key, gflops)
    return max(gflops, most)
