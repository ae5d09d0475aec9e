"""Makes winnow-tiny: corpus, tokenizer, training (resumable), files. See README.md beside it.

    python models/tiny/make.py --work /tmp/winnow-tiny

Stop it at any time: the same command goes on from the last checkpoint. Nothing is pickled.
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from synthesis.chatter import CLOSINGS, MIDDLES, OPENINGS
from synthesis.skill import pick
from synthesis.skills import SKILLS
from synthesis.statements import TRACE_WORDS, document
from synthesis.words import CITIES, DAYS, LABELS, NAMES, THINGS, WORDS

HERE = Path(__file__).parent
VOCABULARY_SIZE = 1408
SPECIAL = ("<bos>", "<eos>", "<pad>")
TURNS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
# Digits and upper-case letters one by one, lower-case words by BPE with their leading space, no merge across kinds.
# The space before a digit or a capital stands alone or goes with a comma: each digit and capital has one token only.
PIECES = r"[0-9]|[A-Z]| ?[a-z]+|, (?=[0-9A-Z])|\n| ?[^\sA-Za-z0-9]+|\s"
CONTEXT = 512
BATCH, LENGTH = 16, 256  # sequences per step, tokens per sequence
# File, share of statements with an aside, tokens made, steps trained on them.
PHASES = (("corpus.npy", 0.0, 21_000_000, 3000), ("asides.npy", 0.5, 6_600_000, 1600))
STEPS = sum(steps for *_, steps in PHASES)
LEARNING_RATES = (0.02, 3e-3)  # of Muon and of AdamW
CHAT_TEMPLATE = (HERE / "chat_template.jinja").read_text(encoding="utf-8")


def documents(seed: int, asides: float, bounds: tuple[int, int]) -> list[str]:
    return [document(seed, i, asides) for i in range(*bounds)]


def corpus(seed: int, asides: float, n_tokens: int, tokenizer: Tokenizer) -> np.ndarray:
    """Token ids of documents 0, 1, 2 ... each between <bos> and <eos>, until there are `n_tokens`; (n,) uint16."""
    bos, eos = (tokenizer.token_to_id(token) for token in SPECIAL[:2])
    parts: list[np.ndarray] = []
    total, size = 0, 5000
    with Pool(2) as pool:
        starts = ((k * size, (k + 1) * size) for k in range(10**6))
        for texts in iter_ahead(pool, partial(documents, seed, asides), starts):
            ids = [[bos, *encoding.ids, eos] for encoding in tokenizer.encode_batch(texts)]
            parts.append(np.fromiter((i for row in ids for i in row), np.uint16))
            total += len(parts[-1])
            if total >= n_tokens:
                return np.concatenate(parts)[:n_tokens]
    raise AssertionError("unreachable: the documents never end")


def iter_ahead(pool, function, arguments, ahead: int = 4) -> Iterator:
    """`map` in order with a bounded number of tasks under way, because the argument stream has no end."""
    waiting = [pool.apply_async(function, (next(arguments),)) for _ in range(ahead)]
    while True:
        waiting.append(pool.apply_async(function, (next(arguments),)))
        yield waiting.pop(0).get()


def train_tokenizer(seed: int) -> Tokenizer:
    """Byte-level BPE on 20,000 documents and on the questions' words: any unicode text round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(TURNS),
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rng = np.random.default_rng(seed)
    questions = [pick(rng, s.phrasings).format(**s.draw_in("pool", rng)) for s in SKILLS.values() for _ in range(1500)]
    chatter = [*OPENINGS, *MIDDLES, *CLOSINGS, " ".join(TRACE_WORDS)] * 150
    lists = ["-".join(WORDS), *(" " + " ".join(words) for words in (THINGS, WORDS, NAMES, CITIES, DAYS, LABELS))] * 500
    tokenizer.train_from_iterator([*documents(seed, 0.0, (0, 20_000)), *questions, *chatter, *lists], trainer)
    tokenizer.add_tokens([AddedToken(turn, normalized=False) for turn in TURNS])
    return tokenizer


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    bos, eos, pad = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def new_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    ids = {f"{name[1:-1]}_token_id": tokenizer.token_to_id(name) for name in SPECIAL}
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=192,
        intermediate_size=480,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        attention_bias=False,
        rope_theta=10000.0,
        **ids,
    )
    return LlamaForCausalLM(config)


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms; rates as in `LEARNING_RATES`."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(matrices, lr=LEARNING_RATES[0], momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=LEARNING_RATES[1], betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def factor(step: int) -> float:
    """Of the learning rates: warm-up over 100 steps, constant, then linear to 0.02 over the last 30 % (WSD)."""
    return min(1.0, (step + 1) / 100, max(0.02, (STEPS - step) / (0.3 * STEPS)))


def save_state(path: Path, step: int, model: LlamaForCausalLM, opts: list[torch.optim.Optimizer]) -> None:
    tensors = {f"model.{name}": p.detach().clone() for name, p in model.named_parameters()}
    for k, opt in enumerate(opts):
        for i, state in opt.state_dict()["state"].items():
            tensors |= {f"opt.{k}.{i}.{name}": torch.as_tensor(value).clone() for name, value in state.items()}
    save_file(tensors, path.with_suffix(".new"), metadata={"step": str(step)})
    path.with_suffix(".new").replace(path)


def load_state(path: Path, model: LlamaForCausalLM, opts: list[torch.optim.Optimizer]) -> int:
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(path)
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")}, strict=False)
    model.tie_weights()
    for k, opt in enumerate(opts):
        full = opt.state_dict()
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"opt.{k}."):
                _, _, i, field = name.split(".")
                states.setdefault(int(i), {})[field] = value
        opt.load_state_dict({"state": states, "param_groups": full["param_groups"]})
    return step


def loss_on(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Nats per token over all tokens but the first of each sequence."""
    logits = model(input_ids=ids).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def known(model: LlamaForCausalLM, tokenizer: Tokenizer, n: int = 40) -> dict[str, float]:
    """Share of validation problems of each skill whose stated answer the model would have written itself."""
    model.eval()
    shares = {}
    for name, skill in SKILLS.items():
        rng = np.random.default_rng(1)
        before, _, _ = skill.statements[0].partition("{answer}")
        rights = 0
        for _ in range(n):
            slots = skill.draw_in("validation", rng)
            start = len(tokenizer.encode(before.rstrip().format(**slots)).ids)
            whole = tokenizer.encode(before.format(**slots) + skill.answer(slots)).ids
            ids = torch.tensor([[tokenizer.token_to_id("<bos>"), *whole]])
            right = model(ids).logits[0].argmax(-1)[start:-1] == ids[0, start + 1 :]
            rights += bool(right.all())
        shares[name] = rights / n
    model.train()
    return shares


def prepare(args: argparse.Namespace, work: Path) -> tuple[Tokenizer, np.ndarray]:
    """Tokenizer and corpus of `work`, made where they are missing; (blocks, length) uint16 in training order.

    First plain statements, then statements with asides: see docs/log.md for what that is good for.
    """
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokenizer.json").exists():
        train_tokenizer(args.seed).save(str(work / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    parts = []
    for seed, (name, asides, n_tokens, steps) in enumerate(PHASES, args.seed):
        if not (work / name).exists():
            np.save(work / name, corpus(seed, asides, n_tokens, tokenizer))
        blocks = np.load(work / name)[: n_tokens // LENGTH * LENGTH].reshape(-1, LENGTH)
        parts.append(blocks[np.random.default_rng(seed).permutation(len(blocks))[: steps * BATCH]])
    return tokenizer, np.concatenate(parts)


def advance(model: LlamaForCausalLM, opts: list[torch.optim.Optimizer], loss_of, ids: torch.Tensor, scale: float):
    """One step on the sequences `ids` (n, length) with every learning rate scaled; its loss in nats per token."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(ids)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for opt, lr in zip(opts, LEARNING_RATES, strict=True):
        opt.param_groups[0]["lr"] = lr * scale
        opt.step()
        opt.zero_grad(set_to_none=True)
    return loss.item()


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    work = Path(args.work)
    tokenizer, blocks = prepare(args, work)
    model = new_model(tokenizer)
    opts = optimizers(model)
    state = work / "state.safetensors"
    first = load_state(state, model, opts) if state.exists() else 0
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {STEPS} steps, from {first}", flush=True)
    loss_of = torch.compile(partial(loss_on, model)) if args.compile else partial(loss_on, model)
    losses, begin, mark = [], time.time(), time.time()
    for step in range(first, STEPS):
        ids = torch.from_numpy(blocks[step * BATCH : (step + 1) * BATCH].astype(np.int64))
        losses.append(advance(model, opts, loss_of, ids, factor(step)))
        done = step + 1
        if done % 50 == 0:
            rate, mark = 50 * BATCH * LENGTH / (time.time() - mark), time.time()
            print(f"step {done} loss {np.mean(losses[-50:]):.4f} {rate:.0f} tokens/s", flush=True)
        if done % 500 == 0 or done == STEPS:
            save_state(state, done, model, opts)
            line = {"step": done, "seconds": round(time.time() - begin)} | known(model, tokenizer)
            print(json.dumps(line), flush=True)
    if args.out:
        finish(model, tokenizer, Path(args.out))


def finish(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Weights, configuration, tokenizer. Sampling is on by default: servers ignore a request's temperature else."""
    tokens = {f"{name}_token_id": getattr(model.config, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model.generation_config = GenerationConfig(do_sample=True, **tokens)
    model.to(torch.float32).save_pretrained(out, safe_serialization=True)
    wrap(tokenizer).save_pretrained(out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, help="folder of corpus, tokenizer and checkpoint")
    parser.add_argument("--out", default="", help="where the finished model goes; nothing is written without it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="torch.compile: 1.5 times as fast, needs a C++ compiler")
    return parser.parse_args()


if __name__ == "__main__":
    train(arguments())
