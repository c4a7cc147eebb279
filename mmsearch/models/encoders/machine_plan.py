"""How to run an image encoder on this machine: measured once, and kept in the cache.

One image on each core at a time is the fastest on some machines and for some graphs, all cores on a batch on others; no
table knows. What was measured counts for the same graph, processor, number of cores and version of ONNX Runtime.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mmsearch.core.options import EncoderOptions
from mmsearch.core.system import usable_cores
from mmsearch.models.encoders.weights import add_to_json, cache_dir, read_json

_SECONDS = 0.4
"""For which one way is tried at least, after one run to warm up."""
_LONG_RUN_S = 2.0
"""A single image that takes longer is not tried in further ways."""


@dataclass(frozen=True)
class Plan:
    """``threads`` of each run, images in a ``batch``, runs ``at_once``; ``rate``: images a second, 0: not measured."""

    threads: int
    batch: int
    at_once: int
    rate: float = 0.0

    @property
    def images(self) -> int:
        """How many images keep it busy for a while."""
        return max(16, 4 * self.at_once * self.batch)


class _Runs(Protocol):
    def run(self, pixels: npt.NDArray[np.uint8]) -> object: ...


def plan_for(
    graph: Path,
    shape: tuple[int, ...],
    open_graph: Callable[[Path, Plan], _Runs],
    options: EncoderOptions,
    *,
    one_by_one: bool = False,
) -> Plan:
    """The fastest way known to run ``graph`` on inputs of ``shape``; tries them at the first call, for seconds.

    ``one_by_one``: no two inputs in one run.
    """
    cores = options.threads or usable_cores()
    key = f"{graph.parent.name}/{graph.name} on {machine(cores)}"
    kept = read_json(cache_dir() / "machine_plans.json").get(key)
    plan = _read(kept)
    if plan is None:
        plan = _fastest(graph, shape, open_graph, cores, one_by_one)
        add_to_json(cache_dir() / "machine_plans.json", key, asdict(plan))
    return plan


def kept_rate(graph: Path) -> float | None:
    """Images a second of a graph as they were measured here with all cores; ``None`` where they were not."""
    key = f"{graph.parent.name}/{graph.name} on {machine(usable_cores())}"
    plan = _read(read_json(cache_dir() / "machine_plans.json").get(key))
    return plan.rate if plan is not None and plan.rate > 0 else None


def machine(cores: int) -> str:
    """What decides how fast a graph runs here."""
    return f"{_processor()}, {cores} cores, onnxruntime {version('onnxruntime')}"


@cache
def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            lines = [line.split(":", 1) for line in file.read(20_000).splitlines() if ":" in line]
        facts = {name.strip(): value.strip() for name, value in lines}
        wide = [
            flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if flag in facts.get("flags", "").split()
        ]
        return f"{facts.get('model name', platform.machine())} {facts.get('model', '')} {' '.join(wide)}".strip()
    except OSError:
        return platform.processor() or platform.machine()


def _read(kept: object) -> Plan | None:
    if isinstance(kept, dict):
        try:
            plan = Plan(**kept)
        except TypeError:
            return None
        return plan if min(plan.threads, plan.batch, plan.at_once) >= 1 else None
    return None


def _fastest(
    graph: Path, shape: tuple[int, ...], open_graph: Callable[[Path, Plan], _Runs], cores: int, one_by_one: bool
) -> Plan:
    ways = [Plan(cores, 1, 1), Plan(cores, 8, 1)]
    if cores > 1:
        ways += [Plan(1, 1, cores), Plan(1, 4, cores)]
    if cores >= 4 and (os.cpu_count() or 1) >= 4:  # two threads of one core may get in each other's way
        ways += [Plan(cores // 2, 8, 1), Plan(1, 1, cores // 2)]
    ways = [way for way in ways if way.batch == 1 or not one_by_one]
    best = ways[0]
    for way in ways:
        rate = _rate(open_graph(graph, way), way, shape)
        if rate > best.rate:
            best = Plan(way.threads, way.batch, way.at_once, round(rate, 2))
        if rate and 1 / rate > _LONG_RUN_S:
            break
    return best


def _rate(runs: _Runs, way: Plan, shape: tuple[int, ...]) -> float:
    """Images a second."""
    pixels = np.random.default_rng(0).integers(0, 256, (way.batch * way.at_once, *shape), dtype=np.uint8)
    runs.run(pixels[:1])
    best, spent, tries = float("inf"), 0.0, 0
    while spent < _SECONDS or tries < 2:
        started = time.perf_counter()
        runs.run(pixels)
        took = time.perf_counter() - started
        best, spent, tries = min(best, took), spent + took, tries + 1
        if took > _LONG_RUN_S:
            break
    return len(pixels) / best
