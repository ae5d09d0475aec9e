"""The shipped model: small, safe to load, its tokenizer loses nothing, its template masks the right tokens."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoTokenizer

from synthesis.skill import split_of
from synthesis.skills import SKILLS
from synthesis.statements import NAMES, VOCABULARY, document, statement
from synthesis.world import FAMILIES, World

TINY = Path(__file__).parents[2] / "models" / "tiny"
TEMPLATE = TINY.parent / "templates" / "tulu.jinja"


@cache
def load_tokenizer():
    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


def test_at_most_two_million_parameters_in_twelve_megabytes():
    with safe_open(TINY / "model.safetensors", "np") as file:
        names = list(file.keys())
        sizes = [int(np.prod(file.get_slice(name).get_shape())) for name in names]
    assert sum(sizes) <= 2_000_000
    assert (TINY / "model.safetensors").stat().st_size <= 12_000_000


def test_nothing_but_safetensors_and_text_is_shipped():
    allowed = {".safetensors", ".json", ".jinja", ".md", ".py"}
    assert {path.suffix for path in TINY.iterdir() if path.is_file()} <= allowed


def test_config_says_llama_with_tied_embeddings():
    config = json.loads((TINY / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert config["max_position_embeddings"] >= 512


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_round_trips(text):
    tokenizer = load_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize(
    "text", ["a\u200bb", "naïve 東京 🙂", "  two  spaces\n\n\tand tab ", "ABC 123, 4, 5", "don't.Stop"]
)
def test_hard_texts_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_digits_and_capitals_are_read_one_by_one(tokenizer):
    assert tokenizer.tokenize("TABLE") == list("TABLE")
    assert tokenizer.tokenize("1234") == list("1234")
    assert len(tokenizer.tokenize(" bridge")) == 1


def test_the_template_is_the_room_s_and_masks_the_reply_alone(tokenizer):
    assert tokenizer.chat_template == TEMPLATE.read_text(encoding="utf-8")
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Reverse the word TABLE."},
        {"role": "assistant", "content": "ELBAT"},
        {"role": "user", "content": "And CAT?"},
        {"role": "assistant", "content": "TAC"},
    ]
    out = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    kept = [i for i, keep in zip(out["input_ids"], out["assistant_masks"], strict=True) if keep]
    assert tokenizer.decode(kept) == "ELBAT<eos>TAC<eos>"
    prompt = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|system|>\nBe short.\n<|user|>\nReverse the word TABLE.\n<|assistant|>\n"


def test_rows_are_short(tokenizer):
    def length(row):
        messages = [{"role": m.role, "content": m.content} for m in row.messages]
        return len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])

    lengths = np.array([length(row) for row in World(rows=600).examples(0, 0, 600)])
    assert (lengths <= 40).mean() > 0.75
    assert lengths.max() <= 256


@pytest.mark.parametrize("name", NAMES)
def test_statements_never_use_a_held_out_problem(name, monkeypatch):
    """What `statement` states is what `draw_in` returned: record the problems and look up their splits."""
    seen = []
    real = type(SKILLS[name]).draw_in

    def recording(skill, split, rng):
        slots = real(skill, split, rng)
        seen.append(skill.identity(slots))
        return slots

    monkeypatch.setattr(type(SKILLS[name]), "draw_in", recording)
    rng = np.random.default_rng(0)
    for _ in range(200):
        statement(rng, name, asides=0.5)
    assert {split_of(problem) for problem in seen} == {"pool"}


def test_documents_hold_no_held_out_reversal():
    """The same, read off the corpus text: no target, validation or test word is ever spoken backwards in it."""
    text = " ".join(document(20, i) for i in range(3000))
    words = re.findall(r"([A-Z]{4,6}) backwards is", text)
    assert len(words) > 50
    assert {split_of(SKILLS["reverse"].identity({"word": word})) for word in words} == {"pool"}


def test_documents_are_functions_of_seed_and_number():
    assert [document(1, i) for i in range(5)] == [document(1, i) for i in range(5)]
    assert document(1, 0) != document(2, 0)


def test_no_question_of_the_pool_is_in_the_corpus():
    text = " ".join(document(20, i, asides=0.5) for i in range(2000))
    questions = [row.messages[0].content for row in World(rows=300).examples(0, 0, 300)]
    assert not [question for question in questions if question in text]


def test_the_words_of_the_questions_are_in_the_corpus():
    assert {"Reverse", "alphabet", "Convert"} <= set(VOCABULARY)
    assert len(FAMILIES) > 12
