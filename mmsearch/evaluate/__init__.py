"""How well an index answers, on data that people have: captions, labels, TREC queries and judgements.

reading    files to questions and their right answers        matching  names in a file to documents of an index
measuring  rankings to figures, one number a question        runs      saved runs, and the comparison of two
judging    agreement with graded human judgements            plot      hit@k as a picture
stages     what a vector index loses, what a reranker gains
"""

from mmsearch.evaluate.judging import agreement
from mmsearch.evaluate.measuring import DEFINITIONS, Evaluation, EvaluationOptions, evaluate
from mmsearch.evaluate.plot import draw_run
from mmsearch.evaluate.reading import EvaluationSet, JudgedQuestion, read_evaluation_set
from mmsearch.evaluate.runs import Run, compare_saved, load_run, save_run
from mmsearch.evaluate.stages import Stage

__all__ = [
    "DEFINITIONS",
    "Evaluation",
    "EvaluationOptions",
    "EvaluationSet",
    "JudgedQuestion",
    "Run",
    "Stage",
    "agreement",
    "compare_saved",
    "draw_run",
    "evaluate",
    "load_run",
    "read_evaluation_set",
    "save_run",
]
