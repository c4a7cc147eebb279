"""The query line: context → retrieve → fuse → [rerank] → calibrate → hits. It knows a store by its contract alone.

options      what can be chosen of a search
question     a query: texts, images, exclusions, exact phrases, filters; and its vectors
language     the query language
context      what a query means for one version of a store, worked out once
retrieve     the best segments of the best documents; widens where too few come
exclusion    what shows, or may show, what must not show
fuse         what file names, folders, captions and texts say, beside what vectors do
rerank       the first candidates in a better order
calibrate    how scores of this encoder are distributed here: hubness, relevance
lists        pictures, passages and sounds as one list, in the order in which it is shown
looks        when two pictures show the same
neighbours   all pairs of near vectors, of which most are never compared
duplicates   all near-duplicates of a store, in groups
moments      frames of a video to one moment; near-duplicates to one hit
searcher     all of it, one query at a time or many
explain      why a document was found
heat         where in a picture a query matched
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
