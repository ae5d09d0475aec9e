"""The process behind `models.verify.mathematics`: reads [[reference, ...], answer] as JSON lines, writes one word each.

It limits its own memory, and an alarm that nothing handles ends it even where whoever started it is gone.
"""

import json
import resource
import signal
import sys

from math_verify import (
    ExprExtractionConfig,
    LatexExtractionConfig,
    parse,
    verify,
)

MEMORY_BYTES = 2 << 30
HOW = (LatexExtractionConfig(), ExprExtractionConfig())
SCALES = {"hundred", "thousand", "million", "billion", "trillion", "dozen"}
WORDS_BEHIND = 3  # letters that make what stands behind a number a word, not a product of unknowns


def compare(wanted: list[str], answer: str) -> str:
    """One of "right", "wrong", "unparsed"."""
    given = parsed(answer)
    if any(verify(parsed(text), given, timeout_seconds=None) for text in wanted):
        return "right"
    return "unparsed" if all(isinstance(meaning, str) for meaning in given) else "wrong"


def parsed(text: str) -> list[object]:
    """What `text` may mean: read as a formula, without the words behind a number."""
    first, _, behind = text.strip().partition(" ")
    last = behind.split()[-1:]
    unit = last and last[0].isalpha() and len(last[0]) >= WORDS_BEHIND and SCALES.isdisjoint(behind.lower().split())
    if unit and not any(char.isdigit() for char in behind) and first.strip("-.,%")[:1].isdigit():
        text = first
    found: list[object] = parse(f"${text}$", HOW, parsing_timeout=None)
    return found


def main() -> None:
    seconds = float(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    compare(["1/2"], r"\frac{1}{2}")  # the first formula takes up to a second, which is not its question's
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, seconds + 1)
        answer = compare(*json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
