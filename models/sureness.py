"""The sentence that ends a refusal-aware reply (R-Tuning, Zhang et al. 2024, §3.2): whether the model is sure.

Rows are written with it, and the tuned model is asked for its confidence in the same words.
"""

from models.telling import Telling

ASKING = "Are you sure you accurately"
SURENESS = Telling(
    "sureness.v1",
    f"{{{{ answer }}}} {ASKING} answered the question based on your internal knowledge? "
    "I am {{ 'sure' if sure else 'unsure' }}.",
)


def with_sureness(answer: str, sure: bool) -> str:
    """`answer`, ended by a full stop where it has no end of its own, and whether the model is sure of it."""
    stripped = answer.strip()
    ended = f"{stripped}." if stripped[-1:].isalnum() else stripped
    return SURENESS(answer=ended, sure=sure)
