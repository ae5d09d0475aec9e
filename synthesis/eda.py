"""EDA (Wei and Zou 2019): small random edits of an instruction, without touching what carries its meaning.

The released code lower-cases the text and deletes every digit and sign. Here only plain words are edited, in place:
code, numbers, addresses, quotations, placeholders, options, names, words of format, of quantity and of negation, and
all that stands behind a blank line stay as they are.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np

from models.dialogue import Accepted, Dialogue, Emit, Rejected, each
from synthesis.attempts import streams
from synthesis.exchange import Exchange, last_exchange
from synthesis.fault import Fault
from synthesis.free_words import Pieces, pieces_of
from synthesis.protocol import Needs, Seeds
from synthesis.skill import Rng
from warehouse.cleaning.parameters import check_count, check_share, check_switch, check_texts
from warehouse.errors import InputError
from warehouse.records import Example, canonical, digest

Technique = Literal["synonym_replacement", "random_insertion", "random_swap", "random_deletion"]
TECHNIQUES: tuple[Technique, ...] = get_args(Technique)
Synonyms: TypeAlias = Mapping[str, Sequence[str]]
"""Lower-case words and what may stand in their place, each at least one."""

WITH_SYNONYMS = frozenset({"synonym_replacement", "random_insertion"})
STOP_WORDS = frozenset([
    "i", "me", "my", "myself", "we", "our", "ours", "ourselves", "you", "your", "yours", "yourself", "yourselves",
    "he", "him", "his", "himself", "she", "her", "hers", "herself", "it", "its", "itself", "they", "them", "their",
    "theirs", "themselves", "what", "which", "who", "whom", "this", "that", "these", "those", "am", "is", "are",
    "was", "were", "be", "been", "being", "have", "has", "had", "having", "do", "does", "did", "doing", "a", "an",
    "the", "and", "but", "if", "or", "because", "as", "until", "while", "of", "at", "by", "for", "with", "about",
    "against", "between", "into", "through", "during", "before", "after", "above", "below", "to", "from", "up",
    "down", "in", "out", "on", "off", "over", "under", "again", "further", "then", "once", "here", "there", "when",
    "where", "why", "how", "all", "any", "both", "each", "few", "more", "most", "other", "some", "such", "own",
    "same", "so", "than", "too", "very", "s", "t", "can", "will", "just", "should", "now"
])  # fmt: skip
TRIES = 10  # draws of a word that has synonyms, for an insertion


@dataclass(frozen=True, slots=True)
class Eda:
    """`augmentations` edited instructions for each seed, each with the seed's own reply.

    Every technique makes the same number of candidates, of which `augmentations` are drawn. A candidate edits
    `share` of the free words, at least one; deletion drops each of them with this probability. Without `synonyms` (a
    mapping, or the path of a JSON file that holds one) there are only swaps and deletions. The last instruction of a
    conversation is edited; its reply never is. `keep_original` gives the seed itself first.
    """

    synonyms: Synonyms | str = field(default_factory=dict)
    augmentations: int = 9
    share: float = 0.1
    techniques: Sequence[str] = TECHNIQUES
    keep_original: bool = True

    needs: ClassVar[Needs] = Needs(seeds=True)
    reasons: ClassVar[frozenset[str]] = frozenset({"no_exchange", "too_few_words", "unchanged", "same_as_earlier"})

    def __post_init__(self) -> None:
        check_count("augmentations", self.augmentations, 1)
        check_share("share", self.share)
        check_texts("techniques", self.techniques, TECHNIQUES)
        check_switch("keep_original", self.keep_original)
        if not self.active:
            raise InputError(
                "eda: the techniques given replace or insert synonyms, and no synonyms were given; give `synonyms`, or "
                "random_swap or random_deletion"
            )

    @property
    def table(self) -> Synonyms:
        if isinstance(self.synonyms, str):
            return _read(Path(self.synonyms).expanduser())
        return _checked(self.synonyms, "synonyms")

    @property
    def active(self) -> list[str]:
        table = self.table
        return [name for name in self.techniques if table or name not in WITH_SYNONYMS]

    @property
    def told(self) -> str:
        """Changes with every synonym: a file's path does not say what is in it."""
        table = {word: list(others) for word, others in self.table.items()}
        return digest(canonical(table)) if table else ""

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        draw = Drawing(self.active, self.table, self.augmentations, self.share)
        pairs = zip(seeds, streams(seeds, rng), strict=True)
        yield from each(pairs, lambda pair: self._seed(draw, *pair))

    def _seed(self, draw: "Drawing", seed: Example, rng: Rng) -> Dialogue[None]:
        exchange = last_exchange(seed)
        if exchange is None:
            yield [Emit((Fault("no_exchange").rejects(seed),))]
            return
        rows: list[Accepted | Rejected] = [Accepted(_row(seed, exchange, "original"))] if self.keep_original else []
        pieces = pieces_of(exchange.instruction)
        if len(pieces.words) < 2:
            rows.append(Fault("too_few_words", f"{len(pieces.words)} that may be edited").rejects(seed))
        else:
            rows += _augmented(seed, exchange, draw.candidates(pieces, rng))
        yield [Emit(tuple(rows))]


@dataclass(frozen=True, slots=True)
class Drawing:
    """How candidates are drawn; `techniques` are those that the `synonyms` allow."""

    techniques: Sequence[str]
    synonyms: Synonyms
    count: int
    share: float

    def candidates(self, pieces: Pieces, rng: Rng) -> list[tuple[str, str]]:
        """(technique, text) of `count` edits in random order, ⌊count / techniques⌋ + 1 of each before the cut."""
        n = max(1, int(self.share * len(pieces.words)))
        made: Mapping[str, Callable[[], str]] = {
            "synonym_replacement": lambda: replaced(pieces, n, self.synonyms, rng),
            "random_insertion": lambda: inserted(pieces, n, self.synonyms, rng),
            "random_swap": lambda: swapped(pieces, n, rng),
            "random_deletion": lambda: deleted(pieces, self.share, rng),
        }
        each_makes = self.count // len(self.techniques) + 1
        found = [(name, made[name]()) for name in self.techniques for _ in range(each_makes)]
        return [found[i] for i in rng.permutation(len(found))[: self.count]]


def replaced(pieces: Pieces, n: int, synonyms: Synonyms, rng: Rng) -> str:
    """Synonym replacement: `n` different words that have synonyms and are no stop words, all of their occurrences."""
    words = sorted({word.lower() for word in pieces.words} & synonyms.keys() - STOP_WORDS)
    chosen = {words[i]: synonyms[words[i]] for i in rng.permutation(len(words))[:n]}
    drawn = {word: others[int(rng.integers(len(others)))] for word, others in chosen.items()}
    return pieces.with_words([_cased(drawn.get(word.lower(), word), word) for word in pieces.words])


def inserted(pieces: Pieces, n: int, synonyms: Synonyms, rng: Rng) -> str:
    """Random insertion: `n` times a synonym of a random word that is no stop word, before a random word."""
    words = list(pieces.words)
    for _ in range(n):
        drawn = (pieces.words[int(rng.integers(len(pieces.words)))].lower() for _ in range(TRIES))
        word = next((word for word in drawn if word in synonyms and word not in STOP_WORDS), None)
        if word is not None:
            at = int(rng.integers(len(words)))
            words[at] = f"{synonyms[word][int(rng.integers(len(synonyms[word])))]} {words[at]}"
    return pieces.with_words(words)


def swapped(pieces: Pieces, n: int, rng: Rng) -> str:
    """Random swap: `n` times two random words change places."""
    words = list(pieces.words)
    for _ in range(n):
        i, j = rng.choice(len(words), 2, replace=False)
        words[i], words[j] = words[j], words[i]
    return pieces.with_words(words)


def deleted(pieces: Pieces, p: float, rng: Rng) -> str:
    """Random deletion: each word goes with probability `p`; one of them always stays."""
    words = list(pieces.words)
    gone = rng.random(len(words)) < p
    if gone.all():
        gone[int(rng.integers(len(words)))] = False
    return pieces.with_words([None if drop else word for word, drop in zip(words, gone, strict=True)])


def _augmented(seed: Example, exchange: Exchange, made: Sequence[tuple[str, str]]) -> list[Accepted | Rejected]:
    """Each new instruction once; those that are the seed's own, or there already, are rejected."""
    rows, seen = list[Accepted | Rejected](), {_folded(exchange.instruction): "unchanged"}
    for technique, text in made:
        row = _row(seed, exchange, technique, text)
        reason = seen.get(_folded(text), "")
        seen.setdefault(_folded(text), "same_as_earlier")
        rows.append(Rejected(reason, technique, row) if reason else Accepted(row))
    return rows


def _row(seed: Example, exchange: Exchange, technique: str, text: str | None = None) -> Example:
    messages = seed.messages if text is None else exchange.asked_as(text)
    meta = {"parents": [seed.sample_id], "template": [], "aug_parent": seed.sample_id, "technique": technique}
    return Example(messages, "eda", meta)


def _cased(word: str, like: str) -> str:
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def _folded(text: str) -> str:
    return " ".join(text.split())


def _read(path: Path) -> Synonyms:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"eda: cannot read the synonyms in {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(
            f"eda: {path} is no JSON ({error}); expected an object of lists, a word to its synonyms"
        ) from error
    return _checked(found, str(path))


def _checked(found: object, name: str) -> Synonyms:
    if not isinstance(found, Mapping):
        raise InputError(
            f"eda: {name} holds {type(found).__name__}; expected a mapping of a word to a list of synonyms"
        )
    for word, others in found.items():
        if not isinstance(word, str) or word != word.lower():
            raise InputError(f"eda: {name} has the word {word!r}; expected lower-case text")
        check_texts(f"{name}[{word!r}]", others)
    return {word: others for word, others in found.items() if others}
