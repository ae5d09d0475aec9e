"""The checks themselves: plain functions of a reply and the instruction's arguments.

Each follows the description that the instruction gives the model (Zhou et al. 2023, appendix A), in the reading of the
published checker where that leaves a choice: a keyword is found inside other words too, a forbidden word is not.
Keywords are looked for as they are written; the published checker takes them for regular expressions.
"""

import json
import re
from collections.abc import Sequence

from eval.instructions.words import sentences, tokens, words
from warehouse.errors import InputError

RELATIONS = ("less than", "at least")
CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
FENCE = re.compile(r"^```(?:json)?|```$", re.IGNORECASE)
TITLE = re.compile(r"<<([^\n]+?)>>")
PLACEHOLDER = re.compile(r"\[[^\[\]]*\]")
BULLET = re.compile(r"^\s*(?:\*(?!\*)|-).*$", re.MULTILINE)
HIGHLIGHT = re.compile(r"\*\*([^\n*]+)\*\*|\*([^\n*]+)\*")
FIRST_WORD = re.compile(r"[\"'“‘]*([^\s.,?!'\"”’]+)")


def related(count: int, relation: str, threshold: int) -> bool:
    """Whether `count` is less than, or at least, `threshold`. Raises `InputError` for another relation."""
    if relation not in RELATIONS:
        raise InputError(f"relation {relation!r} is none of {', '.join(map(repr, RELATIONS))}")
    return count < threshold if relation == "less than" else count >= threshold


def _times(keyword: str, reply: str) -> int:
    return reply.casefold().count(keyword.strip().casefold())


def keywords_exist(reply: str, keywords: Sequence[str]) -> bool:
    return all(_times(keyword, reply) for keyword in keywords)


def keyword_frequency(reply: str, keyword: str, frequency: int, relation: str) -> bool:
    return related(_times(keyword, reply), relation, frequency)


def no_forbidden_words(reply: str, forbidden_words: Sequence[str]) -> bool:
    """None of the words stands in the reply as a whole, whatever its case."""
    wholes = (rf"(?<!\w){re.escape(word.strip())}(?!\w)" for word in forbidden_words)
    return not any(re.search(whole, reply, re.IGNORECASE) for whole in wholes)


def letter_frequency(reply: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return related(reply.lower().count(letter.lower()), let_relation, let_frequency)


def in_language(reply: str, language: str) -> bool:
    """Whether the reply is in this language (ISO 639-1); a text whose language is not clear counts as in it."""
    import pyarrow as pa

    from warehouse.language import UNDETERMINED, languages  # compiles: 0.7 s to import

    found = str(languages(pa.array([reply]))[0])
    return found in (language.partition("-")[0], UNDETERMINED)


def number_of_sentences(reply: str, num_sentences: int, relation: str) -> bool:
    return related(len(sentences(reply)), relation, num_sentences)


def number_of_words(reply: str, num_words: int, relation: str) -> bool:
    return related(len(words(reply)), relation, num_words)


def number_of_paragraphs(reply: str, num_paragraphs: int) -> bool:
    """Paragraphs parted by the divider "***", none of them empty."""
    parts = re.split(r"\s?\*\*\*\s?", reply)
    inner = parts[bool(not parts[0].strip()) : len(parts) - bool(not parts[-1].strip())]
    return all(part.strip() for part in inner) and len(inner) == num_paragraphs


def nth_paragraph_first_word(reply: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Paragraphs parted by empty lines; the n-th, counted from 1, begins with the word, whatever its case."""
    parts = [part.strip() for part in reply.split("\n\n") if part.strip()]
    if len(parts) != num_paragraphs or nth_paragraph > len(parts):
        return False
    found = FIRST_WORD.match(parts[nth_paragraph - 1])
    return found is not None and found[1].lower() == first_word.lower()


def placeholders(reply: str, num_placeholders: int) -> bool:
    return len(PLACEHOLDER.findall(reply)) >= num_placeholders


def postscript(reply: str, postscript_marker: str) -> bool:
    """The marker stands somewhere, whatever its case, and with or without a space after its inner dots."""
    spelled = re.escape(postscript_marker.strip()).replace(r"\.", r"\.\s?").removesuffix(r"\s?")
    return re.search(rf"(?<!\w){spelled}", reply, re.IGNORECASE) is not None


def bullet_list(reply: str, num_bullets: int) -> bool:
    """Exactly so many lines that begin with "*" or "-"."""
    return len(BULLET.findall(reply)) == num_bullets


def constrained_response(reply: str) -> bool:
    return any(option in reply for option in CONSTRAINED)


def highlighted_sections(reply: str, num_highlights: int) -> bool:
    """At least so many texts between single or double asterisks; a text counts once."""
    found = [bold or slanted for bold, slanted in HIGHLIGHT.findall(reply)]
    return sum(bool(text.strip()) for text in found) >= num_highlights


def multiple_sections(reply: str, section_spliter: str, num_sections: int) -> bool:
    """At least so many marks such as "SECTION 1"; the argument's name is spelled as the data spells it."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", reply)) >= num_sections


def json_format(reply: str) -> bool:
    """All of the reply is JSON, in a code fence or not."""
    bare = FENCE.sub("", reply.strip()).strip()
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def title(reply: str) -> bool:
    return any(text.strip("<> ") for text in TITLE.findall(reply))


def two_responses(reply: str) -> bool:
    """Two different texts parted by six asterisks, and nothing else so parted."""
    parts = [part.strip() for part in reply.split("******")]
    inner = parts[bool(not parts[0]) : len(parts) - bool(not parts[-1])]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def repeated_prompt(reply: str, prompt_to_repeat: str) -> bool:
    return reply.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends_with(reply: str, end_phrase: str) -> bool:
    """The phrase is the end of the reply, quotation marks around the reply left out, whatever its case."""
    return reply.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(reply: str) -> bool:
    bare = reply.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def capital_words(reply: str, capital_frequency: int, capital_relation: str) -> bool:
    """Words all in capitals; with hyphens inside they are one word."""
    return related(sum(word.isupper() for word in tokens(reply)), capital_relation, capital_frequency)


def english_capital(reply: str) -> bool:
    return reply.isupper() and in_language(reply, "en")


def english_lowercase(reply: str) -> bool:
    return reply.islower() and in_language(reply, "en")


def no_comma(reply: str) -> bool:
    return "," not in reply
