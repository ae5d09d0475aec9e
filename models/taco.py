"""TaCo's reply (Upadhayay and Behzadan 2023): the question in English, an answer in English, that answer translated.

What is trained on, and what a model's output is read by, are one format in one place.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

ENGLISH = "English"
FormatFailure: TypeAlias = Literal["missing_label", "label_twice", "labels_out_of_order", "empty_part"]


@dataclass(frozen=True, slots=True)
class TacoReply:
    """`instruction` and `response` in English, and `answer`: the response in the language that was asked in."""

    instruction: str
    response: str
    answer: str

    def __post_init__(self) -> None:
        if not (self.instruction.strip() and self.response.strip() and self.answer.strip()):
            raise ValueError("each of the three parts of a TaCo reply needs some text")


def labels(language: str) -> tuple[str, str, str]:
    """The labels of the three parts for a language by its English name."""
    return f"Instruction in {ENGLISH}:", f"Response in {ENGLISH}:", f"Response in {language}:"


def write_taco(reply: TacoReply, language: str) -> str:
    """`reply` as one text: each part behind its label, at the start of a line."""
    parts = (reply.instruction, reply.response, reply.answer)
    return "\n".join(f"{label} {part.strip()}" for label, part in zip(labels(language), parts, strict=True))


def read_taco(text: str, language: str) -> TacoReply | FormatFailure:
    """The parts of a model's output; the answer is its last part. What stands before the first label is passed over.

    Where a label is not there exactly once at the start of a line, in this order, nobody can tell where a part ends.
    """
    found = [list(re.finditer(rf"^[ \t]*{re.escape(label)}", text, re.MULTILINE)) for label in labels(language)]
    if not all(found):
        return "missing_label"
    if any(len(places) > 1 for places in found):
        return "label_twice"
    first, second, third = (places[0] for places in found)
    if not first.end() <= second.start() <= second.end() <= third.start():
        return "labels_out_of_order"
    parts = text[first.end() : second.start()], text[second.end() : third.start()], text[third.end() :]
    if not all(part.strip() for part in parts):
        return "empty_part"
    return TacoReply(*(part.strip() for part in parts))
