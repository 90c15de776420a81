"""Greedy generation by a GPT-2 of fixed random weights; its cache lives on a worker. Says its progress token by token."""

from __future__ import annotations

import argparse
import time

import djinn
import program
import torch
import transformers

DEVICE = "remote_accelerator"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--generations", type=int, default=1, help="one after the other, with the same model and prompt")
    parser.add_argument("--prompt", type=int, default=12)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--session", default=None)
    parser.add_argument("--recovery", default=None, help="checkpoint, replicate or recompute")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two tokens")
    parser.add_argument("--wait", action="store_true", help="for a line on standard input before the first token")
    return parser.parse_args()


def generate(model: torch.nn.Module, prompt: torch.Tensor, given: argparse.Namespace, done: int) -> str:
    ids, past, tokens = prompt.to(DEVICE), None, []
    for step in range(1, given.tokens + 1):
        out = model(ids, past_key_values=past, use_cache=True)
        past = out.past_key_values
        ids = out.logits[:, -1:].argmax(-1)
        tokens.append(ids.item())
        program.say("progress", done + step)
        time.sleep(given.pause)
    return program.digest([torch.tensor(tokens), out.logits[:, -1]])


def main() -> str:
    given = options()
    djinn.init(session=given.session, recovery=given.recovery)
    torch.manual_seed(20)
    config = transformers.GPT2Config(
        n_embd=given.width,
        n_layer=given.layers,
        n_head=max(1, given.width // 64),
        vocab_size=given.vocabulary,
        n_positions=max(1024, given.prompt + given.tokens),
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    model = transformers.GPT2LMHeadModel(config).eval().to(DEVICE)
    prompt = torch.randint(0, given.vocabulary, (1, given.prompt))
    if given.wait:
        program.say("ready")
        input()
    digests = []
    with torch.no_grad():
        for number in range(given.generations):
            digests.append(generate(model, prompt, given, number * given.tokens))
            program.say("generation", digests[-1])
    return digests[0] if len(set(digests)) == 1 else "different"


program.run(main)
