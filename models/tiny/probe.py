"""Measures what fine-tuning does to winnow-tiny: exact match per skill after right rows and after random ones.

    python models/tiny/probe.py models/tiny --skills reverse shift --sizes 1000 400

Plain torch: the chat template, loss on the assistant's tokens only, AdamW with a cosine schedule, greedy replies. One
JSON object per line on stdout; the tables in README.md and docs/log.md are made from them.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from synthesis.tint import RENDERINGS
from synthesis.world import FAMILIES, World
from warehouse.records import Example

IGNORED = -100


def encode(tokenizer, rows: Sequence[Example]) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each row; labels are the ids where the assistant speaks, -100 elsewhere."""
    pairs = []
    for row in rows:
        messages = [{"role": m.role, "content": m.content} for m in row.messages]
        out = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = out["input_ids"], out["assistant_masks"]
        pairs.append((ids, [i if keep else IGNORED for i, keep in zip(ids, mask, strict=True)]))
    return pairs


def padded(lists: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    width = max(map(len, lists))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in lists])


def tune(model, tokenizer, rows: Sequence[Example], lr: float, epochs: int = 3, batch: int = 16, seed: int = 0):
    """A fine-tuned copy of `model`."""
    model = copy.deepcopy(model).train()
    pairs = encode(tokenizer, rows)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(pairs)) for _ in range(epochs)])
    steps = math.ceil(len(order) / batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    for step in range(steps):
        chosen = [pairs[i] for i in order[step * batch : (step + 1) * batch]]
        ids = padded([ids for ids, _ in chosen], tokenizer.pad_token_id)
        labels = padded([labels for _, labels in chosen], IGNORED)
        warm = min(1.0, (step + 1) / (0.05 * steps))
        optimizer.param_groups[0]["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        logits = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model


@torch.no_grad()
def exact_match(model, tokenizer, skill: str, n: int, split: str = "test", seed: int = 0) -> float:
    """Share of `n` held-out problems whose greedy reply is the answer (for traces: whose last line gives it)."""
    model.eval()
    items = list(World(rows=n, split=split, skills=(skill,)).examples(seed, 0, n))
    tokenizer.padding_side = "left"
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": e.messages[0].content}], tokenize=False,
                                      add_generation_prompt=True)
        for e in items
    ]  # fmt: skip
    rights = 0
    for start in range(0, n, 100):
        inputs = tokenizer(prompts[start : start + 100], return_tensors="pt", padding=True, add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        limit = 120 if skill == "tint" else 20
        out = model.generate(**inputs, max_new_tokens=limit, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        for item, ids in zip(items[start:], out[:, inputs["input_ids"].shape[1] :], strict=False):
            reply = tokenizer.decode(ids, skip_special_tokens=True).strip()
            given = RENDERINGS["compact"].answer_in(reply) if skill == "tint" else reply
            rights += given == item.meta["answer"]
    return rights / n


def right_rows(skill: str, n: int) -> list[Example]:
    return list(World(rows=n, skills=(skill,), sources={"clean": 1.0}).examples(7, 0, n))


def random_rows(n: int, seed: int) -> list[Example]:
    """`n` rows drawn without replacement from the default pool."""
    world = World()
    rows = np.random.default_rng(seed).choice(world.rows, size=n, replace=False)
    return [world.pool_row(7, int(i)) for i in rows]


def mixed_rows(skill: str, n: int) -> list[Example]:
    """`n` rows of the skill as the default pool mixes them: all sources, right and wrong."""
    return list(World(rows=n, skills=(skill,)).examples(7, 0, n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--skills", nargs="*", default=list(FAMILIES))
    parser.add_argument("--sizes", nargs="*", type=int, default=[1000, 400])
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="*", default=["base", "random", "right", "mixed"])
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)

    def report(arm: str, size: int, model, skill: str, seconds: float) -> None:
        n = min(args.items, 80) if skill == "sequence" else args.items  # its test split holds about 90 problems
        score = exact_match(model, tokenizer, skill, n)
        line = {"skill": skill, "arm": arm, "rows": size, "lr": args.lr, "exact_match": score, "n": n}
        print(json.dumps({**line, "tune_seconds": round(seconds, 1)}), flush=True)

    def tuned(rows: Sequence[Example]):
        begin = time.time()
        model = tune(base, tokenizer, rows, args.lr, args.epochs, seed=args.seed)
        return model, time.time() - begin

    if "base" in args.arms:
        for skill in args.skills:
            report("base", 0, base, skill, 0.0)
    for size in args.sizes:
        if "random" in args.arms:
            model, seconds = tuned(random_rows(size, args.seed))
            for skill in args.skills:
                report("random", size, model, skill, seconds)
        for arm, rows_of in (("right", right_rows), ("mixed", mixed_rows)):
            for skill in args.skills if arm in args.arms else ():
                model, seconds = tuned(rows_of(skill, size))
                report(arm, size, model, skill, seconds)


if __name__ == "__main__":
    main()
