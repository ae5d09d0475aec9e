"""Which text a conversation becomes, and which of its tokens are reply tokens."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_rows import ROWS, said
from tokenizers import Tokenizer, processors

from models.chat import TULU, ChatFormat, chat_format, encode
from models.local import LocalModel
from models.tokens import load_tokenizer, row_lengths
from warehouse.errors import InputError
from warehouse.records import Message, Messages

Toy = tuple[Tokenizer, ChatFormat]
TURN = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
ROLE = st.sampled_from(["system", "user", "assistant", "tool"])
CONVERSATION = st.lists(st.builds(Message, ROLE, TURN), min_size=1, max_size=5).map(tuple)

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def reply_text(toy: Toy, row: Messages) -> str:
    tokenizer, chat = toy
    [tokens] = encode(tokenizer, chat, [row])
    return str(tokenizer.decode(tokens.ids[tokens.reply].tolist(), skip_special_tokens=False))


def test_the_tulu_text_of_a_conversation(toy: Toy) -> None:
    text = toy[1].render(ROWS[0]).text
    assert text == (
        "<|system|>\nBe terse.\n<|user|>\nWhat is 1+2? 🎉\n<|assistant|>\nThe answer is 3.<|end|>\n"
        "<|user|>\nSure?\n<|assistant|>\nYes.<|end|>"
    )


def test_reply_tokens_are_exactly_the_replies_with_their_end_tokens(toy: Toy) -> None:
    assert reply_text(toy, ROWS[0]) == "The answer is 3.<|end|>Yes.<|end|>"


def test_role_marks_line_ends_and_prompts_are_no_reply_tokens(toy: Toy) -> None:
    tokenizer, chat = toy
    [tokens] = encode(tokenizer, chat, [said("x", "y")])
    pieces = [tokenizer.decode([i], skip_special_tokens=False) for i in tokens.ids]
    assert [piece for piece, mine in zip(pieces, tokens.reply, strict=True) if mine] == ["y", "<|end|>"]
    assert "".join(pieces) == "<|user|>\nx\n<|assistant|>\ny<|end|>"


def test_asking_ends_with_the_mark_that_opens_a_reply(toy: Toy) -> None:
    assert toy[1].render(said("x"), ask=True).text == "<|user|>\nx\n<|assistant|>\n"
    assert toy[1].render(said("x")).text == "<|user|>\nx"


def test_the_plain_text_of_a_conversation(tiny_model_dir: Path) -> None:
    tokenizer, chat = load_tokenizer(tiny_model_dir, "grape")
    assert chat.render(said("x", "y", "z", "w")).text == "Question: x\nAnswer: y<|end|>\nQuestion: z\nAnswer: w<|end|>"
    assert chat.render(ROWS[0][:2], ask=True).text == "Be terse.\nQuestion: What is 1+2? 🎉\nAnswer:"
    assert reply_text((tokenizer, chat), said("x", "y", "z", "w")) == " y<|end|> w<|end|>"


@pytest.mark.parametrize("template", ["tulu", "grape"])
@given(question=TURN, reply=TURN)
@settings(max_examples=60, deadline=None)
def test_a_prompt_has_the_same_tokens_with_its_reply_as_without(
    tiny_model_dir: Path, template: str, question: str, reply: str
) -> None:
    tokenizer, chat = load_tokenizer(tiny_model_dir, template)
    [asked] = encode(tokenizer, chat, [said(question)], ask=True)
    [answered] = encode(tokenizer, chat, [said(question, reply)])
    assert answered.ids[: answered.prompt].tolist() == asked.ids.tolist()


def test_a_row_cannot_forge_a_reply(toy: Toy) -> None:
    forged = "\0reply 0 opens\0mine\0reply 0 closes\0"
    assert reply_text(toy, said(forged, "yours")) == "yours<|end|>"


@given(CONVERSATION)
@settings(max_examples=60, deadline=None)
def test_ids_and_mask_are_those_of_transformers(tiny: LocalModel, row: Messages) -> None:
    [ours] = encode(tiny.tokenizer.backend_tokenizer, tiny.chat, [row])
    theirs = tiny.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in row],
        chat_template=tiny.chat.template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    n = len(ours.ids)  # theirs ends with the white space that ours strips
    assert theirs["input_ids"][:n] == ours.ids.tolist()
    assert theirs["assistant_masks"][:n] == ours.reply.astype(int).tolist()
    assert not any(theirs["assistant_masks"][n:])


@given(CONVERSATION, st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_cutting_keeps_the_beginning(toy: Toy, row: Messages, limit: int) -> None:
    [whole], [cut] = encode(*toy, [row]), encode(*toy, [row], max_length=limit)
    assert np.array_equal(cut.ids, whole.ids[:limit])
    assert np.array_equal(cut.reply, whole.reply[:limit])
    assert cut.truncated == (len(whole.ids) > limit)


def test_rows_are_encoded_the_same_in_any_company(toy: Toy) -> None:
    together = encode(*toy, ROWS)
    for row, tokens in zip(ROWS, together, strict=True):
        [alone] = encode(*toy, [row])
        assert np.array_equal(alone.ids, tokens.ids)
        assert np.array_equal(alone.reply, tokens.reply)


def with_begin_token(tiny_model_dir: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json"))
    pad = tokenizer.token_to_id("<|pad|>")
    tokenizer.post_processor = processors.TemplateProcessing("<|pad|> $A", special_tokens=[("<|pad|>", pad)])
    return tokenizer


def test_a_begin_token_is_there_once_where_the_tokenizer_adds_one(tiny_model_dir: Path) -> None:
    tokenizer = with_begin_token(tiny_model_dir)
    chat = chat_format(tokenizer, "<|end|>")
    assert chat.bos == "<|pad|>"
    [tokens] = encode(tokenizer, chat, [said("x", "y")])
    assert tokens.ids.tolist() == tokenizer.encode(TULU_XY).ids
    assert not tokens.reply[0]


TULU_XY = "<|user|>\nx\n<|assistant|>\ny<|end|>"


def test_no_begin_token_where_the_tokenizer_adds_none(toy: Toy) -> None:
    assert toy[1].bos == ""
    assert encode(*toy, [said("x", "y")])[0].ids.tolist() == toy[0].encode(TULU_XY).ids


def test_own_template_without_marks_finds_the_replies(toy: Toy) -> None:
    chat = chat_format(toy[0], "<|end|>", "own", CHATML)
    rendered = chat.render(ROWS[0])
    assert [rendered.text[a:b] for a, b in rendered.replies] == ["The answer is 3.<|im_end|>", "Yes.<|im_end|>"]


def test_own_template_that_rewrites_the_past_is_refused(toy: Toy) -> None:
    rewriting = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    chat = chat_format(toy[0], "<|end|>", "own", rewriting)
    with pytest.raises(InputError, match="use template 'tulu'"):
        chat.render(said("a", "b"))


def test_own_template_that_refuses_a_conversation_says_why(toy: Toy) -> None:
    chat = chat_format(toy[0], "<|end|>", "own", "{{ raise_exception('no system turns') }}")
    with pytest.raises(InputError, match="no system turns"):
        chat.render(ROWS[0])


def test_a_template_sees_no_clock(toy: Toy) -> None:
    dated = "{% if strftime_now is defined %}today{% else %}26 Jul 2024{% endif %}"
    assert chat_format(toy[0], "<|end|>", "own", dated).render(said("x"), ask=True).text == "26 Jul 2024"


@pytest.mark.parametrize(
    ("eos", "template", "message"),
    [
        ("<|end|>", "alpaca", "known templates: tulu, grape, raw, own"),
        (None, "tulu", "end token"),
        ("<|end|>", "own", "use 'tulu'"),
    ],
)
def test_formats_that_cannot_be(toy: Toy, eos: str | None, template: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chat_format(toy[0], eos, template)


def test_the_key_changes_with_the_template_and_the_tokens() -> None:
    formats = [
        ChatFormat(TULU, "", "a"),
        ChatFormat(TULU, "", "b"),
        ChatFormat(TULU, "a", ""),
        ChatFormat(CHATML, "", "a"),
    ]
    assert len({chat.key for chat in formats}) == len(formats)


def test_lengths_without_torch_are_those_of_the_model(tiny: LocalModel, tiny_model_dir: Path) -> None:
    counted = row_lengths(str(tiny_model_dir), ROWS)
    assert counted.tolist() == tiny.count_tokens(ROWS).tolist() == [len(t.ids) for t in encode(*toy_of(tiny), ROWS)]


def toy_of(tiny: LocalModel) -> Toy:
    return tiny.tokenizer.backend_tokenizer, tiny.chat


def test_special_tokens_may_be_objects_in_older_files(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((tiny_model_dir / "tokenizer.json").read_bytes())
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|end|>"}}')
    assert load_tokenizer(tmp_path)[1].eos == "<|end|>"


def test_a_folder_without_tokenizer_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
