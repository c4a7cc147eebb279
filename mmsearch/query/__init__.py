"""The `query` line: question → vector → nearest rows, words, filters → best segment of each document → hits.

options      what to answer with
question     what is asked: texts, images, exclusions, exact phrases, filters; and its vectors
vectors      which vector search answers
meaning      what a question means for an index: vector, terms, spreads
candidates   the nearest rows that may answer, in growing numbers
exclusion    what shows, or may show, what must not show
evidence     what file names, folders, captions and texts say
hubness      what is taken off the scores of pictures that lie near every text
background   how scores of this encoder are distributed here: hubness, relevance
fit          how well a question fits a picture, comparable between questions and pictures
reference    unrelated photos, which tell what a question reaches by chance
moments      frames of a video to one moment; near-duplicates to one hit
searcher     all of it, one question at a time or many
many         many questions: equal ones once, encoding beside answering
explain      why a document was found
heat         where in a picture a question matched
thumbnail    small pictures of indexed files
"""

from typing import TYPE_CHECKING

from mmsearch.core.lazy import lazily

if TYPE_CHECKING:
    from mmsearch.query.options import SearchOptions as SearchOptions
    from mmsearch.query.question import EncodedQuestion as EncodedQuestion
    from mmsearch.query.question import Question as Question
    from mmsearch.query.question import encode_questions as encode_questions
    from mmsearch.query.searcher import Searcher as Searcher

_HOMES = {
    "SearchOptions": "mmsearch.query.options",
    "EncodedQuestion": "mmsearch.query.question",
    "Question": "mmsearch.query.question",
    "encode_questions": "mmsearch.query.question",
    "Searcher": "mmsearch.query.searcher",
}
__all__ = [*_HOMES]
__getattr__ = lazily(__name__, _HOMES)
