"""What a text is about: its phrases after RAKE (rapid automatic keyword extraction), hashed into a sparse signal.

A phrase is a run of words between stop words and punctuation. A word scores the number of words in the phrases it is
in, over the number of times it is in one (degree / frequency); a phrase the sum of its words' scores.
"""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import regex
from scipy.sparse import csr_matrix

from selection.buckets import check_dims
from warehouse.records import Spec

DIMS = 1 << 20
MOST = 12  # phrases of one text: pairs of them are compared, and late ones say little
LONGEST = 4  # words of a phrase: longer runs are lists and code, which no other text shares
PIECES = regex.compile(r"[\p{L}\p{N}]+(?:['’\-_][\p{L}\p{N}]+)*|[^\s]")
STOP_WORDS = frozenset(
    regex.findall(
        r"\S+",
        """
        a about above after again against all also am an and any are aren't as at be because been before being below
        between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each
        either else etc ever every few for from further get give given gives had hadn't has hasn't have haven't having
        he he'd he'll he's her here here's hers herself him himself his how how's however i i'd i'll i'm i've if in into
        is isn't it it's its itself just let let's like made make makes many may me might more most much must mustn't my
        myself no nor not now of off on once one only or other others ought our ours ourselves out over own please same
        shall shan't she she'd she'll she's should shouldn't since so some such than that that's the their theirs them
        themselves then there there's therefore these they they'd they'll they're they've this those through thus to too
        under until up upon us use used uses using very via was wasn't we we'd we'll we're we've were weren't what
        what's when when's where where's whether which while who who's whom whose why why's will with within without
        won't would wouldn't you you'd you'll you're you've your yours yourself yourselves yet
        """,
    )
)


def spec(dims: int) -> Spec:
    """What rebuilds the signal; `version` moves when the phrases, the stop words or the hash do."""
    return Spec("concepts", {"dims": dims, "version": 1})


def phrases(text: str, most: int = MOST) -> list[str]:
    """At most `most` distinct phrases of `text`, best first, ties as they appear; after NFKC and case folding.

    Words without a letter stand in phrases but make none alone; runs of more than LONGEST words are left out.
    """
    found = _runs(text)
    frequency: dict[str, int] = defaultdict(int)
    degree: dict[str, int] = defaultdict(int)
    for run in found:
        for word in run:
            frequency[word] += 1
            degree[word] += len(run)
    distinct = dict.fromkeys(found)
    scores = {run: sum(degree[word] / frequency[word] for word in run) for run in distinct}
    return [" ".join(run) for run in sorted(distinct, key=lambda run: -scores[run])[:most]]


def concepts(texts: Sequence[str], dims: int = DIMS) -> csr_matrix:
    """(n, dims) float32, 1 in every bucket that holds a phrase of the text; columns of a row ascend."""
    check_dims(dims, DIMS)
    rows = [sorted({bucket(phrase, dims) for phrase in phrases(text)}) for text in texts]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    columns = np.fromiter((column for row in rows for column in row), np.int32, int(starts[-1]))
    return csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(len(texts), dims))


@lru_cache(maxsize=1 << 16)
def bucket(phrase: str, dims: int) -> int:
    """The bucket of a phrase: the same on every machine."""
    word = hashlib.blake2b(phrase.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(word, "big") % dims


def _runs(text: str) -> list[tuple[str, ...]]:
    """The runs of words of `text` between stop words, punctuation and ends of lines."""
    runs: list[tuple[str, ...]] = []
    run: list[str] = []
    for line in unicodedata.normalize("NFKC", text).casefold().splitlines():
        for piece in PIECES.findall(line):
            word = piece.replace("’", "'")
            if piece[0].isalnum() and word not in STOP_WORDS:
                run.append(word)
            else:
                runs.append(tuple(run))
                run = []
        runs.append(tuple(run))
        run = []
    return [each for each in runs if 0 < len(each) <= LONGEST and any(map(_has_letter, each))]


def _has_letter(word: str) -> bool:
    return any(character.isalpha() for character in word)
