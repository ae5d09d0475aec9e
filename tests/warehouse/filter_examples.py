"""For every reason of every row filter: rows that have it, and rows that are close but do not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cleaning_rows import Turns, asked

ENGLISH = "The committee will meet again on Thursday to discuss the budget for the coming year"
FRENCH = "Le comité se réunira de nouveau jeudi afin de discuter du budget de l'année prochaine"
LONG = "In the spring the river rises and the farmers of the valley move their sheep to higher ground"
SONG = [f"This is line number {number} of a song about the sea" for number in range(12)]


@dataclass(frozen=True, slots=True)
class Example:
    """Rows that `name` with `params` finds with `reason`, and rows in which it finds nothing."""

    name: str
    reason: str
    found: Sequence[Turns]
    kept: Sequence[Turns]
    params: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)  # of the rows found
    kept_meta: Mapping[str, Any] = field(default_factory=dict)


def replies(*texts: str) -> list[Turns]:
    return [asked("Tell me more, please.", text) for text in texts]


def prompts(*texts: str) -> list[Turns]:
    return [asked(text, "Fine.") for text in texts]


EXAMPLES = [
    Example("length", "too_short", replies("a"), replies("a" * 40), {"min_chars": 30}),
    Example("length", "too_long", replies("b" * 100_001), replies("b" * 99_000)),
    Example("length", "too_short_prompt", prompts("  ab \n"), prompts("abc"), {"min_prompt": 3}),
    Example("length", "too_long_prompt", prompts("abcd"), prompts("  abc "), {"max_prompt": 3}),
    Example("length", "too_short_reply", [*replies("", " \n\t"), [("user", "No reply.")]], replies("7")),
    Example("length", "too_long_reply", replies("语" * 6), replies(" 语语语语语 "), {"max_reply": 5}),
    Example("turns", "too_few_turns", [[("assistant", "Alone.")]], replies("Two.")),
    Example(
        "turns",
        "too_many_turns",
        [asked("a", "b") * 2],
        [asked("a", "b"), [("system", "s"), *asked("a", "b")]],
        {"max_turns": 3},
    ),
    Example(
        "turns",
        "ends_without_reply",
        [[*asked("a", "b"), ("user", "And?")], [("user", "a"), ("tool", "{}")]],
        replies("Yes."),
    ),
    Example(
        "turns",
        "roles_do_not_alternate",
        [
            [("user", "a"), ("user", "b"), ("assistant", "c")],
            [("user", "a"), ("system", "s"), ("user", "b"), ("assistant", "c")],
            [("user", "a"), ("assistant", "b"), ("assistant", "c")],
        ],
        [
            [("system", "s"), *asked("a", "b"), *asked("c", "d")],
            [("user", "a"), ("assistant", "call"), ("tool", "1"), ("tool", "2"), ("assistant", "b")],
        ],
        {"alternating": True},
    ),
    Example(
        "language", "other_language", replies(FRENCH), [asked(ENGLISH, ENGLISH), asked("7", "8")], {"keep": ["en"]}
    ),
    Example(
        "language",
        "other_language",
        [asked("7", "8")],
        [asked(ENGLISH, ENGLISH)],
        {"keep": ["en", "de"], "keep_undetermined": False},
    ),
    Example(
        "licence",
        "licence_denied",
        replies("a"),
        replies("a"),
        {"deny": ["cc-by-nc*", "gpl-3.0"]},
        {"license": "CC BY-NC-SA 4.0"},
        {"license": "CC BY-SA 4.0"},
    ),
    Example(
        "licence",
        "licence_denied",
        replies("a"),
        replies("a"),
        {"deny": ["cc-by-nc*"]},
        {"license": "apache-2.0 AND cc-by-nc-4.0"},
        {"license": "apache-2.0 AND cc-by-4.0"},
    ),
    Example(
        "licence",
        "licence_unknown",
        replies("a"),
        replies("a"),
        {"deny": [], "deny_unknown": True},
        {"license": "Unknown"},
        {"license": "Our own terms"},
    ),
    Example(
        "licence",
        "licence_unknown",
        replies("a"),
        replies("a"),
        {"deny": ["gpl*"], "deny_unknown": True},
        {},
        {"license": "mit"},
    ),
    Example(
        "empty_reply", "blank_reply", replies("", " \n", "...", '"""', "????"), replies("7", "<b>", "👍", "C", "+1")
    ),
    Example(
        "empty_reply",
        "no_answer",
        replies("N/A", "none.", "<nooutput>", "[No output]", "NULL", "not applicable"),
        [*replies("None of them came.", "Nan is my aunt."), asked("Which?\nOptions:\n- Two\n- None", "None")],
    ),
    Example(
        "truncated_reply",
        "ends_open",
        replies(
            f"{LONG}, and",
            f"{LONG},",
            f"{LONG} (",
            f"{LONG}, because the",
            "河水上涨，农民们把羊群赶到更高的地方去，那里的草更绿，",
        ),
        replies(
            f"{LONG}.",
            LONG,
            "Bread, milk, and",
            f"- {LONG}, and",
            f"{LONG}?\nLove,",
            f"1. one\n2. {LONG} the",
            f"```\nx = 1\n```\n{LONG} and",
            f"| {LONG} and |",
            f"{LONG}; see https://example.org/the",
            f'{LONG} "in all."',
        ),
    ),
    Example(
        "truncated_reply",
        "ends_in_dots",
        replies(f"{LONG} of the...", f"{LONG} where they…"),
        replies("Well...", f"{LONG}. 1, 2, 3, ...", f"{LONG}."),
    ),
    Example(
        "truncated_reply",
        "ends_mid_sentence",
        replies(
            f"It rains. It pours. It stops. {LONG}",
            "下雨了。雨停了。太阳出来了。" + "河水上涨农民们把羊群赶到更高的地方去那里的草更绿更高",
        ),
        replies(
            LONG,
            f"It rains. {LONG}",
            f"It rains. It pours. It stops. {LONG}.",
            "It rains. It pours. It stops. Yours, Ann",
        ),
        {"unclosed_sentences": True},
    ),
    Example(
        "refusal",
        "refusal",
        replies(
            "I'm sorry, but I can't help with that.",
            "I’m sorry, but I don’t have the ability to book flights.",
            "I cannot assist with that request.",
            "I apologize, but I am unable to answer.",
            "It would be unethical and illegal for me to provide that.",
            "Es tut mir leid, aber das kann ich leider nicht sagen.",
            "Lo siento, pero no puedo ayudarte con eso.",
            "Je suis désolé, mais je ne peux pas vous aider.",
            "很抱歉，我无法回答这个问题。",
        ),
        replies(
            "I'm sorry for your loss.",
            "I can't help but wonder why.",
            "She said she cannot come.",
            "It is illegal to drink and drive.",
            f"{LONG}. " * 5 + "I'm sorry, but I can't help with that.",
        ),
    ),
    Example("refusal", "refusal", replies("Nope, NOT (today)."), replies("Not now."), {"phrases": ["not (today)"]}),
    Example(
        "refusal",
        "ai_disclaimer",
        replies(
            f"{LONG}. {LONG}. {LONG}. As an AI language model, I have no taste.",
            "I'm just an AI, but here it is.",
            "Als KI habe ich keinen Geschmack.",
            "作为一个人工智能语言模型，我没有感情。",
        ),
        replies("An AI language model predicts words.", "As an AIr force pilot he knew.", "He works as an airman."),
    ),
    Example(
        "boilerplate",
        "placeholder",
        [
            *replies("<noinput>", "Dear [insert name], welcome.", "Lorem ipsum dolor sit amet."),
            *prompts("Sort it. <no input>"),
        ],
        [
            asked("Write a letter template with [insert name].", "Dear [insert name]!"),
            *replies("[Your Name]", "Insert the coin here."),
            *replies("```\n<insert code here>\n```"),
        ],
    ),
    Example(
        "boilerplate",
        "generator_note",
        replies(
            "Ok. Note: This response was generated automatically.",
            "Yes.<|im_end|>",
            "Hi\n### Human: and",
            "As of my last knowledge update in 2021, no.",
        ),
        replies("Note: this is a draft.", "It was generated by a wind turbine.", "### Summary\nGood."),
    ),
    Example(
        "boilerplate",
        "page_residue",
        replies(
            "Tea&nbsp;time", "Skip to main content", "It&#39;s me", "One<br/>two", "© 2008 CNN. All rights reserved."
        ),
        [*replies("Tom & Jerry", "a < b", "Cookies are baked."), asked("Write an HTML list.", "One<br>two")],
    ),
    Example(
        "boilerplate",
        "pleasantry",
        replies("Sure! Here is a list.", "It is 7. I hope this helps!", "Yes. Let me know if you need more."),
        replies("Surely it is.", "Of course he came.", "She helps."),
        {"kinds": ["pleasantry"]},
    ),
    Example(
        "boilerplate",
        "phrase",
        replies("Brought to you by ACME (tm)!"),
        replies("Brought to you by post."),
        {"kinds": [], "phrases": ["by acme (TM)"]},
    ),
    Example(
        "repetition",
        "repeated_lines",
        replies("\n".join(SONG[:2] * 6)),
        replies("\n".join(SONG), "\n".join(["}"] * 30), "\n".join(SONG[:1] * 3)),
    ),
    Example(
        "repetition",
        "repeated_words",
        replies("I can do that for you, my friend. " * 12, "我不知道" * 60, "x" * 400),
        replies(
            " ".join(SONG), "no no no", "我不知道" * 5, "see https://en.wikipedia.org/wiki/Hubble_Space_Telescope " * 2
        ),
    ),
    Example(
        "code_fence",
        "unclosed_fence",
        [*replies("```python\nx = 1", "```\na\n```\ntext\n```\nb"), *prompts("Fix this:\n```\nx =")],
        replies("```\na\n```", "Put ``` before code.", "```\na```", "````\n```\na\n```\n````", "no code"),
    ),
    Example(
        "mojibake",
        "mojibake",
        replies("cafÃ© crÃ¨me", "Iâ€™ve seen it", "20Â°C", "ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Iâ\x80\x99ve"),
        replies("café crème", "SÃO PAULO", "I’ve", "20°C", "Привет", "Â, ã, é and ñ"),
    ),
    Example("mojibake", "lost_characters", replies("na\ufffdve"), replies("naïve")),
    Example(
        "pii",
        "pii_secret",
        replies(
            "AKIAQ7T3ZK5LMN2PWR4V",
            "key sk-Abc123Def456Ghi789Jkl012",
            "ghp_" + "aB3dE6gH9kL2nP5rT8vX1z" * 2,
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
        ),
        replies(
            "AKIAIOSFODNN7EXAMPLE",
            "risk-averse-and-long-sentence-of-words",
            "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "-----BEGIN PUBLIC KEY-----",
        ),
    ),
    Example(
        "pii",
        "pii_card",
        replies("pay with 4556 7375 8689 9855 now", "371146379829189"),
        replies("4556 7375 8689 9856", "4111 1111 1111 1111", "0.4556737586899855", "1234567812345670"),
    ),
    Example(
        "pii",
        "pii_iban",
        replies("to AT61 1904 3002 3457 3201 today"),
        replies("AT61 1904 3002 3457 3202", "DE89 3704 0044 0532 0130 00", "ISBN10 1234 5678"),
    ),
    Example(
        "pii",
        "pii_ssn",
        replies("SSN 536-22-8817"),
        replies("123-45-6789", "000-12-3456", "2021-11-05", "1536-22-88171"),
    ),
    Example(
        "pii",
        "pii_phone",
        replies("call +49 30 9018 2060", "(212) 736-5000", "212-736-5000", "+1 212.736.5000"),
        replies("call 555-1234", "+1 (415) 555-2671", "2127365000", "2020-10-11", "1-2-3", "+12", "123-456-7890"),
    ),
    Example(
        "pii",
        "pii_email",
        replies("write to ann.smith@gmail.com.", "ANN@uni-bonn.de"),
        replies(
            "me@example.com",
            "git@github.com:a/b",
            "logo@2x.png",
            "npm i pkg@1.2.3",
            "@ann",
            "a @ b.com",
            "x@test.example.org",
        ),
    ),
    Example(
        "pii",
        "pii_ipv4",
        replies("ping 93.184.216.34", "at 140.82.121.4:443"),
        replies(
            "192.168.0.1",
            "127.0.0.1",
            "10.1.2.3",
            "version 4.18.102.7",
            "v93.184.216.34",
            "1.2.3",
            "8.8.8.8",
            "192.0.2.7",
            "999.1.1.1",
            "93.184.216.34.5",
            "5.0.0.62",
        ),
    ),
    Example("pii", "pii_ipv4", replies("host 192.168.17.1"), replies("host 1.2.3"), {"private_addresses": True}),
    Example(
        "pii",
        "pii_ipv6",
        replies("from 2606:2800:220:1:248:1893:25c8:1946", "2a00:1450:4001:81b::200e"),
        replies("fe80::1", "2001:db8::1", "12:30:45", "std::move", "2021:10:11"),
    ),
]
