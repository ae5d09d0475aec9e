"""Skills over upper-case words. winnow-tiny reads upper-case letters one by one, so the letters are visible to it."""

from synthesis.skill import Rng, Skill, Slots, between, pick
from synthesis.words import ALPHABET, CONSONANTS, VOWELS


def pronounceable(rng: Rng, low: int, high: int) -> str:
    """An invented upper-case word of `low` to `high` letters, consonants and vowels in turn."""
    kinds = (CONSONANTS, VOWELS) if rng.random() < 0.75 else (VOWELS, CONSONANTS)
    return "".join(kinds[i % 2][int(rng.integers(len(kinds[i % 2])))] for i in range(between(rng, low, high)))


def draw_reverse(rng: Rng) -> Slots:
    return {"word": pronounceable(rng, 4, 6)}


def answer_reverse(slots: Slots) -> str:
    return slots["word"][::-1]


REVERSE = Skill(
    "reverse",
    draw_reverse,
    answer_reverse,
    (
        "Reverse the word {word}.",
        "Write {word} from right to left.",
        "Spell {word} starting at its last letter.",
        "What do you get if you flip the letters of {word}?",
        "Turn {word} around.",
    ),
    (
        "{word} backwards is {answer}.",
        "read from the end, {word} becomes {answer}.",
        "in a mirror {word} looks like {answer}.",
        "read the other way, the word {word} says {answer}.",
        "{word} and {answer} are mirror words.",
    ),
)


def draw_acronym(rng: Rng) -> Slots:
    words = [pronounceable(rng, 2, 4) for _ in range(between(rng, 3, 4))]
    return {"end": pick(rng, ("first", "last")), "words": " ".join(words)}


def answer_acronym(slots: Slots) -> str:
    place = 0 if slots["end"] == "first" else -1
    return "".join(word[place] for word in slots["words"].split())


ACRONYM = Skill(
    "acronym",
    draw_acronym,
    answer_acronym,
    (
        "Take the {end} letter of each word: {words}.",
        "Join the {end} letters of {words}.",
        "Make a short name from the {end} letters of the words {words}.",
        "Which letters come {end} in the words {words}?",
    ),
    (
        "the {end} letters in {words} are {answer}.",
        "{words} have {end} letters {answer}.",
        "each word of {words} gives its {end} letter, together {answer}.",
    ),
)


def draw_shift(rng: Rng) -> Slots:
    return {"word": pronounceable(rng, 3, 5)}


def answer_shift(slots: Slots) -> str:
    return "".join(ALPHABET[(ALPHABET.index(letter) + 1) % 26] for letter in slots["word"])


SHIFT = Skill(
    "shift",
    draw_shift,
    answer_shift,
    (
        "Replace every letter of {word} by the next one in the alphabet.",
        "Move each letter of {word} one step up the alphabet.",
        "Encode {word} by going one letter forward.",
        "Write {word} in the code where A is B and B is C.",
    ),
    (
        "{word} one place later in the alphabet is {answer}.",
        "as a secret, {word} is sent as {answer}.",
        "with each letter made one later, {word} becomes {answer}.",
        "the letters that follow those of {word} are {answer}.",
    ),
)


def draw_counting(rng: Rng) -> Slots:
    letters = [ALPHABET[int(i)] for i in rng.choice(26, size=3, replace=False)]
    word = "".join(letters[int(i)] for i in rng.integers(3, size=between(rng, 4, 7)))
    return {"word": word, "letter": letters[int(rng.integers(3))]}


def answer_counting(slots: Slots) -> str:
    return str(slots["word"].count(slots["letter"]))


COUNTING = Skill(
    "counting",
    draw_counting,
    answer_counting,
    (
        "How many times does {letter} occur in {word}?",
        "Count the letter {letter} in {word}.",
        "How often is {letter} used to write {word}?",
        "Give the number of {letter} in the word {word}.",
    ),
    (
        "in {word} the letter {letter} is found {answer} times.",
        "{word} has {letter} in it {answer} times.",
        "looking through {word} for {letter} one finds {answer}.",
        "the letter {letter} in the word {word}: {answer}.",
    ),
)

LETTER_SKILLS = (REVERSE, ACRONYM, SHIFT, COUNTING)
