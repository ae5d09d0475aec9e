"""The 25 instructions by their ids: a check, whose further parameters are the instruction's arguments."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from eval.instructions import checks

INSTRUCTIONS: dict[str, Callable[..., bool]] = {
    "keywords:existence": checks.keywords_exist,
    "keywords:frequency": checks.keyword_frequency,
    "keywords:forbidden_words": checks.no_forbidden_words,
    "keywords:letter_frequency": checks.letter_frequency,
    "language:response_language": checks.in_language,
    "length_constraints:number_sentences": checks.number_of_sentences,
    "length_constraints:number_paragraphs": checks.number_of_paragraphs,
    "length_constraints:number_words": checks.number_of_words,
    "length_constraints:nth_paragraph_first_word": checks.nth_paragraph_first_word,
    "detectable_content:number_placeholders": checks.placeholders,
    "detectable_content:postscript": checks.postscript,
    "detectable_format:number_bullet_lists": checks.bullet_list,
    "detectable_format:constrained_response": checks.constrained_response,
    "detectable_format:number_highlighted_sections": checks.highlighted_sections,
    "detectable_format:multiple_sections": checks.multiple_sections,
    "detectable_format:json_format": checks.json_format,
    "detectable_format:title": checks.title,
    "combination:two_responses": checks.two_responses,
    "combination:repeat_prompt": checks.repeated_prompt,
    "startend:end_checker": checks.ends_with,
    "startend:quotation": checks.quotation,
    "change_case:capital_word_frequency": checks.capital_words,
    "change_case:english_capital": checks.english_capital,
    "change_case:english_lowercase": checks.english_lowercase,
    "punctuation:no_comma": checks.no_comma,
}


def fault(instruction: str, arguments: Mapping[str, Any]) -> str:
    """What is wrong with an instruction as a row gives it, "" where nothing is."""
    if instruction not in INSTRUCTIONS:
        return f"asks for the unknown instruction {instruction!r}; known: {', '.join(INSTRUCTIONS)}"
    _, *needed = inspect.signature(INSTRUCTIONS[instruction]).parameters
    if set(arguments) != set(needed):
        return f"gives {instruction} the arguments {sorted(arguments)}; it takes {sorted(needed)}"
    return next(filter(None, (_misfit(instruction, name, value) for name, value in arguments.items())), "")


def follows(reply: str, instruction: str, arguments: Mapping[str, Any]) -> bool:
    """Whether `reply` does what the instruction asks; an empty one never does."""
    return bool(reply.strip()) and INSTRUCTIONS[instruction](reply, **arguments)


def follows_loosely(reply: str, instruction: str, arguments: Mapping[str, Any]) -> bool:
    """Whether `reply` does, or one of its repaired forms: without its first line, its last, both, and asterisks."""
    lines = reply.split("\n")
    forms = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return any(follows(form, instruction, arguments) for form in [*forms, *(f.replace("*", "") for f in forms)])


def _misfit(instruction: str, name: str, value: Any) -> str:
    wanted = inspect.signature(INSTRUCTIONS[instruction]).parameters[name].annotation
    if name.endswith("relation") and value not in checks.RELATIONS:
        return f"gives {instruction} the {name} {value!r}; it takes one of {', '.join(checks.RELATIONS)}"
    texts = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if isinstance(value, wanted) if isinstance(wanted, type) else texts:
        return ""
    return f"gives {instruction} the {name} {value!r}, which is not what it takes"
