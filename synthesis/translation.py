"""Translation as a seam: what must not change is taken out before, put back after, and missed if it is lost.

The role is answered by whatever model is given for it: an instruction-tuned one follows the template.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from models.dialogue import Dialogue
from models.protocol import Prompt
from models.telling import telling
from synthesis.attempts import LOST, TEMPLATES
from synthesis.fault import Fault, ask
from synthesis.languages import in_other_language, language_name
from synthesis.protected import TO_CARRY_OVER, mask
from warehouse.records import Message

TRANSLATE = telling(TEMPLATES, "translate.v1")
TRANSLATOR = "translator"
"""The role of the model that translates."""

FAULTS: frozenset[str] = LOST | {"tags_lost", "other_language"}
"""Why a text has no translation: no usable reply; a protected span that is gone, or there twice; a reply in another
language than was asked for."""


class Translator(Protocol):
    def __call__(self, text: str, source: str, target: str) -> Dialogue[str | Fault]:
        """`text` in the language `target`, or why not: one of `FAULTS`. Languages are codes of `languages.NAMES`."""


@dataclass(frozen=True, slots=True)
class AskedTranslator:
    """Asks the model in `role`, greedily. A text that is protected as a whole (a number, code) is its own translation.

    `kinds` are the kinds of span that come back as they went in.
    """

    role: str = TRANSLATOR
    max_tokens: int = 1024
    kinds: Sequence[str] = TO_CARRY_OVER

    def __call__(self, text: str, source: str, target: str) -> Dialogue[str | Fault]:
        masked = mask(text, self.kinds)
        if not any(letter.isalpha() for letter in masked.text):
            return text
        told = TRANSLATE(
            source=language_name(source),
            target=language_name(target),
            text=masked.text,
            tagged=bool(masked.spans),
        )
        reply = yield from ask(self.role, Prompt((Message("user", told),), max_tokens=self.max_tokens))
        if isinstance(reply, Fault):
            return reply
        restored = masked.restored(reply)
        if restored is None:
            return Fault("tags_lost", f"{len(masked.spans)} protected spans, reply: {reply[:80]!r}")
        other = in_other_language(restored, target)
        return restored if other is None else Fault("other_language", f"{other}, not {target}")
