"""Train the small skills model of the demonstration from scratch, on a CPU, in two minutes.

    python tools/train_skills.py --output src/mlflow_quantgov/demo/models/skills

A Llama with a byte tokenizer learns, all at once, to add four-digit numbers, to copy and to reverse words, and to
continue sentences of a small grammar (see `mlflow_quantgov.demo.models.skills_data`). The shipped evaluation items
are never drawn.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from mlflow_quantgov.demo.models import skills_data as data

EOS_ID = 256
VOCABULARY = 258
TEXT_LENGTH = 256


def byte_alphabet() -> list[str]:
    """The printable stand-in of each byte in byte-level BPE, by byte value (GPT-2's published mapping)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write_tokenizer(folder: Path) -> None:
    """One token per byte, `<eos>`, and one merge of two control bytes: llama.cpp demands a list that is not empty."""
    alphabet = byte_alphabet()
    vocabulary = {symbol: byte for byte, symbol in enumerate(alphabet)} | {alphabet[0] + alphabet[1]: 257}
    special = {"id": EOS_ID, "content": data.EOS, "single_word": False, "lstrip": False, "rstrip": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**special, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary | {data.EOS: EOS_ID},
            "merges": [[alphabet[0], alphabet[1]]],
        },
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": data.EOS,
        "pad_token": data.EOS,
        "model_max_length": TEXT_LENGTH,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def skill_batch(skill: str, size: int, rng: random.Random, held_out: set[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (answer and end only) of one skill, both [size, longest], padded with the end token."""
    rows: list[tuple[bytes, bytes]] = []
    while len(rows) < size:
        text, result = data.SKILLS[skill](rng)
        if text not in held_out:
            rows.append((text.encode(), result.encode()))
    longest = max(len(p) + len(a) for p, a in rows) + 1
    ids = torch.full((size, longest), EOS_ID)
    labels = torch.full((size, longest), -100)
    for i, (prompt, answer) in enumerate(rows):
        tokens = torch.tensor([*prompt, *answer, EOS_ID])
        ids[i, : len(tokens)] = tokens
        labels[i, len(prompt) : len(tokens)] = tokens[len(prompt) :]
    return ids, labels


def text_batch(size: int, rng: random.Random) -> torch.Tensor:
    """Documents one after another, each followed by the end token: [size, TEXT_LENGTH]."""
    rows = []
    for _ in range(size):
        tokens: list[int] = []
        while len(tokens) < TEXT_LENGTH:
            tokens += [*data.document(rng).encode(), EOS_ID]
        rows.append(tokens[:TEXT_LENGTH])
    return torch.tensor(rows)


def exact(model: LlamaForCausalLM, skill: str, count: int = 100) -> float:
    """Share of the first `count` shipped items whose every answer token is the most likely one."""
    right = 0
    for item in data.items(skill)[:count]:
        prompt, answer = item["prompt"].encode(), [*item["answer"].encode(), EOS_ID]
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            predicted = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].argmax(-1).tolist()
        right += predicted == answer
    return right / count


def train(steps: int, layers: int, intermediate: int, rate: float, decay: float, seed: int) -> LlamaForCausalLM:
    """Train for a fixed number of steps with a one-cycle learning rate; prints progress."""
    torch.manual_seed(seed)
    rng = random.Random(seed)  # noqa: S311 - reproducible training data, no secret
    held_out = {item["prompt"] for skill in data.SKILLS for item in data.items(skill)}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=256, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=TEXT_LENGTH, rope_theta=10000.0,
            tie_word_embeddings=True, bos_token_id=EOS_ID, eos_token_id=EOS_ID, pad_token_id=EOS_ID,
            attn_implementation="sdpa",
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, betas=(0.9, 0.98))
    start = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * max(0.01, min(1.0, step / 50) * (1 - step / steps) ** 0.7)
        optimizer.zero_grad(set_to_none=True)
        losses = {}
        for skill, size in (("addition", 96), ("copying", 32), ("reversal", 64)):
            ids, labels = skill_batch(skill, size, rng, held_out)
            losses[skill] = model(input_ids=ids, labels=labels).loss
        text = text_batch(4, rng)
        losses["text"] = model(input_ids=text, labels=text).loss
        torch.stack([losses["addition"] * 2, losses["copying"], losses["reversal"], losses["text"]]).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            shown = " ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            print(f"{time.monotonic() - start:4.0f} s, step {step}: {shown}", flush=True)
    return model.eval()


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the model as a bfloat16 safetensors folder that transformers and llama.cpp's converters read."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "initializer_range": config.initializer_range,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }
    keys = ("vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
            "head_dim max_position_embeddings bos_token_id eos_token_id pad_token_id")  # fmt: skip
    settings |= {key: getattr(config, key) for key in keys.split()}
    (folder / "config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    generation = {"do_sample": False, "bos_token_id": EOS_ID, "eos_token_id": EOS_ID, "pad_token_id": EOS_ID}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(folder)


def main() -> None:
    """Train, report exact-answer rates of the float and the bfloat16 model, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--intermediate", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = train(options.steps, options.layers, options.intermediate, options.rate, options.decay, options.seed)
    save(model, options.output)
    for name, variant in (("trained", model), ("bfloat16", model.to(torch.bfloat16).to(torch.float32))):
        print(name, {skill: exact(variant, skill) for skill in data.SKILLS}, flush=True)


if __name__ == "__main__":
    main()
