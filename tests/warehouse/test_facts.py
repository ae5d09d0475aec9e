"""Facts of rows: worked examples, the model's own answers, and independence of the block."""

import string
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cleaning_rows import asked, block_of, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from warehouse.block import Block
from warehouse.facts import describe, described
from warehouse.language import CONFIDENCE, NO_LANGUAGE, WIDER, languages
from warehouse.licences import card_licence, normalised_licence

SENTENCES = {
    "en": "The committee will meet again on Thursday to discuss the budget for the coming year.",
    "de": "Der Ausschuss trifft sich am Donnerstag wieder, um über den Haushalt zu sprechen.",
    "fr": "Le comité se réunira de nouveau jeudi afin de discuter du budget de l'année prochaine.",
    "es": "El comité se reunirá de nuevo el jueves para hablar del presupuesto del próximo año.",
    "ru": "Комитет снова соберётся в четверг, чтобы обсудить бюджет на следующий год.",
    "zh": "委员会将于星期四再次开会，讨论明年的预算。",
    "ja": "委員会は木曜日に再び集まり、来年度の予算について話し合います。",
    "ar": "ستجتمع اللجنة مرة أخرى يوم الخميس لمناقشة ميزانية العام المقبل.",
    "ko": "위원회는 목요일에 다시 모여 내년 예산을 논의할 것입니다.",
}
CODE = {
    "fence": "Like this:\n```\nx\n```",
    "python": "def area(r):\n    return 3 * r",
    "c": "#include <stdio.h>\nint main() { return 0; }",
    "javascript": "const total = items.length;",
    "sql": "SELECT id, name\nFROM users\nORDER BY name;",
    "html": "<div class='a'>text</div>",
    "assignments": "x = 3\ny = x + 4\nprint(x, y)",
    "shell": "#!/bin/bash\necho hi",
}
NO_CODE = {
    "list": "1. Wash the rice;\n2. Boil it;\n3. Serve it with beans.",
    "letter": "Dear Ann,\nthank you for the book.\nYours, Bob",
    "import": "We import coffee from Brazil and class it by size.",
    "let": "Let me think. Function follows form; select one from the list.",
    "options": "Options:\n- A: true\n- B: false\n- C: it depends",
}
MATHS = {
    "sum": "12 + 7 = 19",
    "units": "He ate 3 apples * 2 days = 6 apples.",
    "money": "She pays 4*$5=$20 in all.",
    "latex": r"The answer is \frac{1}{2}.",
    "dollars": "Let $n^2 + 1$ be prime.",
    "equation": "Solve 2x + 5 = 11.",
    "power": "the derivative of x^3",
    "sign": "so n ≤ 4",
}
NO_MATHS = {
    "prices": "It costs $5 and not $10 as before.",
    "date": "Between 2020-10-11 and 12/24/2021 we met 3 - 4 times.",
    "dash": "The key = value pairs: vitamin c - take 5 a day.",
    "score": "They won 6-4, 7-6 and a phone number is 555-1234.",
    "code": "```\nx = y + 3\nz = x ^ 2\n```",
    "prose": "One plus one is two, as everybody knows.",
}


def fact(name: str, block: Block) -> list[object]:
    return list(describe(block, None)[name].to_pylist())


@pytest.mark.parametrize("code", SENTENCES)
def test_languages_of_sentences(code: str) -> None:
    assert fact("language", block_of([asked(SENTENCES[code], SENTENCES[code])])) == [code]


def test_language_is_undetermined_without_words() -> None:
    rows = [asked("42", "7"), asked("", ""), asked("12 / 3 =", "4"), asked("?", "0x1F")]
    assert fact("language", block_of(rows)) == ["und"] * 4


def test_code_has_the_language_of_the_words_around_it() -> None:
    rows = [asked(SENTENCES["de"], f"```\n{CODE['python'] * 40}\n```"), asked("", CODE["c"])]
    assert fact("language", block_of(rows)) == ["de", "und"]


def test_system_prompts_and_tools_say_nothing_about_language() -> None:
    row = [("system", SENTENCES["en"] * 3), *asked(SENTENCES["fr"], SENTENCES["fr"]), ("tool", SENTENCES["en"] * 9)]
    assert fact("language", block_of([row])) == ["fr"]


@cache
def one_at_a_time() -> LanguageIdentifier:
    """py3langid as it is, restricted to the classes that are kept."""
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages([name for name in model.labels if len(WIDER.get(name, name)) == 2 or name == NO_LANGUAGE])
    return model


TEXT = st.one_of(
    st.text(string.ascii_letters + " .,éüñ", max_size=60),
    st.lists(st.sampled_from([*SENTENCES.values(), *CODE.values(), "42", "HELLO THERE", "e\u0301te\u0301"])).map(
        " ".join
    ),
    st.text(max_size=30),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXT, max_size=8))
def test_languages_are_the_models_own(texts: list[str]) -> None:
    model = one_at_a_time()
    shares: dict[str, float] = {}
    expected, close = [], []
    for text in texts:
        shares = {}
        for name, share in model.rank(text):
            shares[WIDER.get(name, name)] = shares.get(WIDER.get(name, name), 0) + share
        best = sorted(shares, key=shares.__getitem__)[::-1]
        sure = shares[best[0]] >= CONFIDENCE and best[0] != NO_LANGUAGE
        expected.append(best[0] if sure else "und")
        close.append(abs(shares[best[0]] - CONFIDENCE) < 1e-4 or shares[best[0]] - shares[best[1]] < 1e-4)
    found = languages(pa.array(texts, pa.string())).to_pylist()
    assert [a for a, near in zip(found, close, strict=True) if not near] == [
        b for b, near in zip(expected, close, strict=True) if not near
    ]


@pytest.mark.parametrize(("name", "yes", "no"), [("has_code", CODE, NO_CODE), ("has_math", MATHS, NO_MATHS)])
def test_code_and_mathematics(name: str, yes: dict[str, str], no: dict[str, str]) -> None:
    for expected, texts in ((True, yes), (False, no)):
        for side in ((asked(text, "Well.") for text in texts.values()), (asked("Go on.", t) for t in texts.values())):
            found = fact(name, block_of(list(side)))
            assert {kind for kind, value in zip(texts, found, strict=True) if value is not expected} == set()


def test_sizes_count_characters_of_all_turns() -> None:
    block = block_of([[("system", "é"), *asked("语言", "ab")], []])
    assert fact("turns", block) == [3, 0]
    assert fact("chars", block) == [5, 0]


def test_family_is_the_first_text_in_the_order_of_the_keys() -> None:
    metas = [
        {"dataset": "d", "skill": "s", "Task_Family": "f"},
        {"category": "c", "task": " "},
        {"taxonomy": ["t", "u"], "task": "k"},
        {"task": 3, "skill": None, "category": []},
        {"nested": {"task": "x"}, "note": 'a "task": here'},
        {},
    ]
    block = block_of([asked("a", "b")] * len(metas), metas)
    assert fact("family", block) == ["f", "c", "t", None, None, None]


def test_a_rows_own_licence_goes_before_its_sources() -> None:
    metas = [{"license": "MIT License"}, {"Licence": ["CC BY-NC 4.0", "mit"]}, {"license": ""}, {}]
    block = block_of([asked("a", "b")] * 4, metas)
    assert describe(block, "Apache 2.0")["licence"].to_pylist() == ["mit", "cc-by-nc-4.0", "apache-2.0", "apache-2.0"]
    assert describe(block, None)["licence"].to_pylist()[2:] == [None, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Apache 2.0", "apache-2.0"), ("apache-2.0", "apache-2.0"), ("Apache License, Version 2.0", "apache-2.0"),
        ("Apache-2", "apache-2.0"), ("The Apache Software License 2.0", "apache-2.0"), ("MIT", "mit"),
        ("MIT License", "mit"), ("The MIT License", "mit"), ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0"), ("CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0"), ("cc by 4", "cc-by-4.0"),
        ("Creative Commons Attribution 4.0 International", "cc-by-4.0"), ("CC BY-NC", "cc-by-nc"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 3.0", "cc-by-nc-sa-3.0"), ("CC0", "cc0-1.0"),
        ("https://creativecommons.org/licenses/by-nc/4.0/", "cc-by-nc-4.0"), ("CC0 1.0 Universal", "cc0-1.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"), ("GPLv3", "gpl-3.0"),
        ("GPL-3.0-only", "gpl-3.0-only"), ("BSD 3-Clause", "bsd-3-clause"), ("bsd-3", "bsd-3-clause"),
        ("ODC-BY", "odc-by"), ("unknown", "unknown"), ("  Our  Own Terms (2023)\n", "our own terms (2023)"),
        ("Research only, see the license file", "research only, see the license file"),
    ],
)  # fmt: skip
def test_spellings_of_licences(text: str, expected: str) -> None:
    assert normalised_licence(text) == expected
    assert normalised_licence(expected) == expected


@given(st.text(max_size=40))
def test_normalising_a_licence_twice_is_normalising_it_once(text: str) -> None:
    assert normalised_licence(normalised_licence(text)) == normalised_licence(text)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: cc-by-4.0\ntags: [a]\n---\n# Card", "cc-by-4.0"),
        ("---\r\nlicense:\r\n- Apache 2.0\r\n- mit\r\n---\r\n", "apache-2.0"),
        ("---\ntags: [a]\n---\nlicense: mit", None),
        ("license: mit", None),
        ("---\nlicense: [mit\n---\n", None),
        ("---\nlicense: mit\nwhen: 2024-13-45\n---\n", None),
        ("---\n- mit\n---\n", None),
        ("---\nlicense: 4\n---\n", None),
        ("---\n&a [*a\n---\n", None),
        ("", None),
    ],
)
def test_licence_of_a_card(tmp_path: Path, card: str, expected: str | None) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert card_licence(tmp_path) == expected


def test_no_card_and_a_broken_card_have_no_licence(tmp_path: Path) -> None:
    assert card_licence(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\xfe\n\x00---\n")
    assert card_licence(tmp_path) is None


PIECES = st.sampled_from([*SENTENCES.values(), *CODE.values(), *NO_CODE.values(), *MATHS.values(), "", "7"])
ROWS = st.lists(st.tuples(PIECES, PIECES).map(lambda pair: asked(*pair)), min_size=1, max_size=5)


@settings(max_examples=8, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_facts_are_of_one_row_alone(rows: list[list[tuple[str, str]]], random: object) -> None:
    whole = described(block_of(rows)).table
    order = np.array(random.sample(range(len(rows)), len(rows)))  # type: ignore[attr-defined]
    shuffled = described(Block(table_of(rows).take(pa.array(order)))).table
    assert shuffled.equals(whole.take(pa.array(order)))
    single = [described(Block(table_of(rows).slice(at, 1))).table for at in range(len(rows))]
    assert pa.concat_tables(single).combine_chunks().equals(whole.combine_chunks())


def test_describing_again_changes_nothing_and_no_rows_have_no_facts() -> None:
    once = described(block_of([asked("a", "b")]), "MIT")
    assert described(once, "MIT").table.equals(once.table)
    assert described(block_of([])).table.num_rows == 0
