"""The exchange of a row that a synthesizer works on: its last reply, and what was asked for it."""

from dataclasses import dataclass

from warehouse.records import Example, Message, Messages


@dataclass(frozen=True, slots=True)
class Exchange:
    """The last reply of a row, and the user turn before it, which is turn `place` of the row."""

    messages: Messages
    place: int
    reply: str

    @property
    def instruction(self) -> str:
        return self.messages[self.place].content

    def asked_as(self, instruction: str) -> Messages:
        """The row with another instruction in the place of this one; all else, the reply too, stays."""
        turn = Message("user", instruction)
        return (*self.messages[: self.place], turn, *self.messages[self.place + 1 :])


def last_exchange(row: Example) -> Exchange | None:
    """None where the row has no reply with something in it, or no user turn with something in it before the reply."""
    replied = [i for i, turn in enumerate(row.messages) if turn.role == "assistant" and turn.content.strip()]
    if not replied:
        return None
    asked = [i for i, turn in enumerate(row.messages[: replied[-1]]) if turn.role == "user" and turn.content.strip()]
    return Exchange(row.messages, asked[-1], row.messages[replied[-1]].content) if asked else None
