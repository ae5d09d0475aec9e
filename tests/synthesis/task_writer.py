"""A generator of tasks that plays by the prompts of Self-Instruct: what it says is a function of the prompt alone."""

import random
import re

from models.protocol import Prompt
from warehouse.records import digest

TEXT = """sort count name describe explain compare translate shorten extend rank judge list find choose combine split
apples rivers numbers letters sentences poems songs towns years animals colours verbs tools plants clocks boats"""
WORDS = tuple(TEXT.split())


def drawn(prompt: Prompt) -> random.Random:
    """Random numbers that are a function of the prompt."""
    return random.Random(digest(f"{prompt.messages[-1].content} {prompt.seed} {prompt.draw}"))


def instruction(rng: random.Random) -> str:
    """Five to nine words; each third time the same ones, but for the last."""
    words = rng.choices(WORDS, k=rng.randint(5, 9)) if rng.random() < 2 / 3 else [*WORDS[:6], rng.choice(WORDS)]
    return " ".join(words).capitalize()


def asked(prompt: Prompt) -> str:
    """The instruction that a prompt ends with."""
    return re.findall(r"^Task: (.*)$", prompt.messages[-1].content, re.MULTILINE)[-1]


def writes(prompt: Prompt) -> str:
    """Lists, kinds and instances, by what the prompt asks for."""
    text, rng = prompt.messages[-1].content, drawn(prompt)
    if "Go on with the list" in text:
        first, last = map(int, re.search(r"write tasks (\d+) to (\d+)", text).groups())
        return "\n".join(f"{k}. {instruction(rng)}" for k in range(first, last + 1))
    if text.endswith("Classification:"):
        return "Yes" if len(asked(prompt)) % 3 == 0 else "No"
    if "Class label:" in text:
        return "Class label: odd\n3 and 4\nClass label: even\n4 and 4"
    return "Example 1\nInput: 1, 2\nOutput: 2, 1\nExample 2\nInput: 5\nOutput: five"
