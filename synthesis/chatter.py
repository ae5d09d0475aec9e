"""What a wordy assistant says around an answer: the `verbose` source, right but buried."""

OPENINGS = (
    "Sure, I am happy to help with that.",
    "Thank you for this interesting question.",
    "Let me think about it step by step.",
    "Of course, here is what I found.",
    "Good question, many people ask this.",
)
MIDDLES = (
    "After looking at it with care, I would say that it is {answer}.",
    "As far as I can see the answer should be {answer}.",
    "In the end this gives us {answer}, as you may have expected.",
    "So the result that I get here is {answer}.",
)
CLOSINGS = (
    "I hope this helps.",
    "Please tell me if you need anything else.",
    "Feel free to ask again at any time.",
    "Have a nice day.",
)
