"""How well an index answers, on data that people have: captions, labels, TREC queries and judgements.

reading    files to questions and their right answers        matching  names in a file to documents of an index
measuring  rankings to figures, one number a question        runs      saved runs: comparison, picture
judging    agreement with graded human judgements
stages     what a vector index loses, what a reranker gains
"""

from typing import TYPE_CHECKING

from mmsearch.core.lazy import lazily

if TYPE_CHECKING:
    from mmsearch.evaluate.judging import agreement as agreement
    from mmsearch.evaluate.measuring import DEFINITIONS as DEFINITIONS
    from mmsearch.evaluate.measuring import Evaluation as Evaluation
    from mmsearch.evaluate.measuring import evaluate as evaluate
    from mmsearch.evaluate.options import EvaluationOptions as EvaluationOptions
    from mmsearch.evaluate.reading import EvaluationSet as EvaluationSet
    from mmsearch.evaluate.reading import JudgedQuestion as JudgedQuestion
    from mmsearch.evaluate.reading import read_evaluation_set as read_evaluation_set
    from mmsearch.evaluate.runs import Run as Run
    from mmsearch.evaluate.runs import check_drawing as check_drawing
    from mmsearch.evaluate.runs import compare_saved as compare_saved
    from mmsearch.evaluate.runs import draw_runs as draw_runs
    from mmsearch.evaluate.runs import load_run as load_run
    from mmsearch.evaluate.runs import save_run as save_run
    from mmsearch.evaluate.stages import Stage as Stage

_HOMES = {
    "agreement": "mmsearch.evaluate.judging",
    "DEFINITIONS": "mmsearch.evaluate.measuring",
    "Evaluation": "mmsearch.evaluate.measuring",
    "evaluate": "mmsearch.evaluate.measuring",
    "EvaluationOptions": "mmsearch.evaluate.options",
    "check_drawing": "mmsearch.evaluate.runs",
    "draw_runs": "mmsearch.evaluate.runs",
    "EvaluationSet": "mmsearch.evaluate.reading",
    "JudgedQuestion": "mmsearch.evaluate.reading",
    "read_evaluation_set": "mmsearch.evaluate.reading",
    "Run": "mmsearch.evaluate.runs",
    "compare_saved": "mmsearch.evaluate.runs",
    "load_run": "mmsearch.evaluate.runs",
    "save_run": "mmsearch.evaluate.runs",
    "Stage": "mmsearch.evaluate.stages",
}
__all__ = [*_HOMES]
__getattr__ = lazily(__name__, _HOMES)
