"""Training of a small GPT-2 with AdamW; weights and optimizer state live on a worker. Says its progress step by step."""

from __future__ import annotations

import argparse

import djinn
import program
import torch
import transformers

DEVICE = "remote_accelerator"


def main() -> str:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--session", default=None)
    given = parser.parse_args()
    djinn.init(session=given.session)
    torch.manual_seed(21)
    config = transformers.GPT2Config(
        n_embd=given.width,
        n_layer=1,
        n_head=1,
        vocab_size=128,
        n_positions=64,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    model = transformers.GPT2LMHeadModel(config).train().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batches = torch.randint(0, 128, (given.steps, 2, 16))
    for step in range(given.steps):
        ids = batches[step].to(DEVICE)
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        program.say("progress", step + 1)
    return program.digest(list(model.parameters()))


program.run(main)
