"""Saved runs: the paired comparison of two, and a picture of several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmsearch.core.errors import UsageError
from mmsearch.core.extras import install_hint
from mmsearch.evaluate.measuring import Evaluation
from mmsearch.evaluate.metrics import RunComparison, compare_runs
from mmsearch.evaluate.stages import Stage

SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """What was measured, with what. ``per_question``: measure → question's id → number; ranks beyond the depth are
    ``None``.
    """

    encoder: str
    gallery: int
    recipe: str
    figures: dict[str, dict[str, float | None]]
    two_way: dict[str, float]
    per_question: dict[str, dict[str, float | None]]
    left_out: int = 0
    index_recall: float | None = None
    index_loss: dict[str, Any] | None = None
    rerank_gain: dict[str, Any] | None = None

    @classmethod
    def of(cls, evaluation: Evaluation, encoder: str) -> Run:
        """The run of an evaluation."""
        return cls(
            encoder=encoder,
            gallery=evaluation.gallery,
            recipe=evaluation.recipe,
            figures={
                name: {key: _finite(value) for key, value in asdict(interval).items()}
                for name, interval in evaluation.figures.items()
            },
            two_way=evaluation.two_way,
            per_question={
                name: {key: _finite(value) for key, value in zip(evaluation.ids, values, strict=True)}
                for name, values in evaluation.per_question.items()
            },
            left_out=evaluation.left_out,
            index_recall=evaluation.index_recall,
            index_loss=_plain(evaluation.index_loss),
            rerank_gain=_plain(evaluation.rerank_gain),
        )


def _plain(stage: Stage | None) -> dict[str, Any] | None:
    """A stage as values that JSON gives back as they were."""
    if stage is None:
        return None
    values = asdict(stage)
    return {**values, "seconds": None if stage.seconds is None else list(stage.seconds)}


def save_run(run: Run, path: Path) -> None:
    """Writes a run as one JSON object."""
    try:
        path.write_text(json.dumps({"schema": SCHEMA, **asdict(run)}, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the run cannot be written to {path}: {error}") from error


def load_run(path: Path) -> Run:
    """Reads a run that was saved.

    Raises:
        UsageError: there is none, or it is not one.
    """
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        return Run(**fields)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no saved run of `mmsearch eval --save`: {error}") from error


def compare_saved(one: Run, other: Run, samples: int = 10_000) -> dict[str, RunComparison]:
    """For each measure: is ``one`` better than ``other``, on the questions that both were asked?

    Raises:
        UsageError: they share no question.
    """
    compared = {}
    for name, values in one.per_question.items():
        others = other.per_question.get(name, {})
        shared = [key for key in values if key in others]
        pairs = [(values[key], others[key]) for key in shared]
        if name == "rank" or not pairs:
            continue
        compared[name] = compare_runs(
            [float(a or 0.0) for a, _ in pairs], [float(b or 0.0) for _, b in pairs], samples=samples
        )
    if not compared:
        raise UsageError("the two runs share no question: they must come from the same evaluation file")
    return compared


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None


def hit_curve(run: Run, most: int = 100) -> list[float]:
    """hit@1 … hit@``most`` from the places of the first right answers."""
    ranks = list(run.per_question["rank"].values())
    return [sum(rank is not None and rank <= k for rank in ranks) / len(ranks) for k in range(1, most + 1)]


def check_drawing() -> None:
    """Raises `UsageError` where `draw_runs` lacks what it draws with."""
    if find_spec("matplotlib") is None:
        raise UsageError(f"drawing needs an extra that is not installed: {install_hint('plot')}")


def draw_runs(runs: Sequence[tuple[str, Run]], path: Path, most: int = 100) -> None:
    """Draws hit@k of one or several named runs over k (logarithmic) into an image file: PNG, PDF, SVG …

    Raises:
        UsageError: the extra ``plot`` is not installed, or the file cannot be written.
    """
    check_drawing()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, run in runs:
        axes.plot(range(1, most + 1), hit_curve(run, most), label=f"{name}: gallery {run.gallery:,}, {run.recipe}")
    axes.set(xscale="log", xlim=(1, most), ylim=(0, 1), xlabel="k", ylabel="hit@k")
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100) if k <= most]
    axes.set_xticks(ticks, labels=[str(k) for k in ticks])
    axes.set_title("share of questions with a right answer among the first k")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the plot cannot be written to {path}: {error}") from error
