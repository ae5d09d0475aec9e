"""A generator and a judge that answer as they are asked: whole scorer runs without a strong model."""

import re

from models.canned import CannedModel
from models.protocol import Prompt

GIVEN = re.compile(r"#Given (?:Prompt|Response)#:\n((?:(?!#Given).)*?)\n\n#Rewritten", re.DOTALL)
LISTED = re.compile(r"^\[([0-9]+)\] (?!Score)(.*?)(?=\n\n\[[0-9]+\] |\n\Z)", re.MULTILINE | re.DOTALL)


def text_in(prompt: Prompt) -> str:
    """The text that a generator is asked to rewrite."""
    found = GIVEN.search(prompt.messages[0].content)
    assert found
    return found[1]


def listed_in(prompt: Prompt) -> list[str]:
    """The texts that a judge is asked to score, in their order."""
    return [text for _, text in LISTED.findall(prompt.messages[0].content)]


def longer(prompt: Prompt) -> str:
    return f"{text_in(prompt)} more"


def by_length(prompt: Prompt) -> str:
    """The longest text gets 6, the next 5, and so on."""
    texts = listed_in(prompt)
    places = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    return "\n".join(f"[{i + 1}] Score: {max(1, 6 - places.index(i))}" for i in range(len(texts)))


def generator() -> CannedModel:
    return CannedModel(longer)


def judge() -> CannedModel:
    return CannedModel(by_length)
