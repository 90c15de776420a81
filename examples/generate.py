"""GPT-2 124M generates 32 greedy tokens with Hugging Face's `generate`; its KV cache stays on the worker.

The model is unmodified, built from its configuration with a fixed seed (no download). The same model generates on the local CPU
beside it: the tokens must be equal.

    DJINN_ADDRESS=127.0.0.1:7400 python examples/generate.py [--tokens 32]
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import djinn  # noqa: E402
import torch  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402
from transformers.generation.streamers import BaseStreamer  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

SEED = 0
# Wider than the default, so that an untrained model does not repeat one token for ever.
INITIALIZER_RANGE = 0.1
PROMPT_TOKENS = 16


class Clock(BaseStreamer):
    """Notes when each token came, and shows it."""

    def __init__(self, label: str) -> None:
        self.label, self.times, self.tokens = label, [], []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) > 1:  # the first call is the prompt
            self.tokens.append(int(value.reshape(-1)[-1]))
            print(f"\r  {self.label}: {len(self.tokens)} tokens", end="", flush=True)

    def end(self) -> None:
        print()

    def ms_per_token(self) -> float:
        """Median over the tokens after the first, which pays for the prompt."""
        steps = sorted(b - a for a, b in zip(self.times[1:-1], self.times[2:], strict=True))
        return 1000 * steps[len(steps) // 2]


def generate(model: GPT2LMHeadModel, prompt: torch.Tensor, tokens: int, label: str) -> tuple[torch.Tensor, Clock]:
    clock = Clock(label)
    with torch.no_grad():
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            streamer=clock,
        )
    return out.cpu(), clock


def executions_by_worker() -> dict[str, int]:
    """What each worker has run so far, as the head knows it."""
    return {str(row.get("name", row.get("id"))): int(row.get("executions", 0)) for row in djinn.status().get("workers", [])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32)
    tokens = parser.parse_args().tokens
    transformers_logging.set_verbosity_error()
    torch.manual_seed(SEED)
    print("building GPT-2 124M ...", flush=True)
    model = GPT2LMHeadModel(GPT2Config(pad_token_id=50256, initializer_range=INITIALIZER_RANGE)).eval()
    prompt = torch.randint(0, 50256, (1, PROMPT_TOKENS), generator=torch.Generator().manual_seed(SEED))

    expected, local = generate(model, prompt, tokens, "local CPU")
    djinn.init()
    start = time.perf_counter()
    model = model.to("remote_accelerator")
    remote_prompt = prompt.to("remote_accelerator")
    _, cold = generate(model, remote_prompt, tokens, "remote, cold")
    cold_s = time.perf_counter() - start
    before = djinn.stats()
    actual, warm = generate(model, remote_prompt, tokens, "remote, warm")
    after = djinn.stats()

    moved = {
        key: after[key] - before[key] for key in ("bytes_out", "bytes_in", "round_trips", "reads", "executions", "ops_recorded")
    }
    stats = djinn.stats()
    print(f"\ntokens equal to the local CPU's    {torch.equal(actual, expected)}: {actual[0, PROMPT_TOKENS:].tolist()}")
    print(
        f"ms per token                       local {local.ms_per_token():.1f}, remote {warm.ms_per_token():.1f}; first run with upload {cold_s:.1f} s"
    )
    print(f"bytes per token                    {moved['bytes_out'] / tokens:.0f} out, {moved['bytes_in'] / tokens:.0f} in")
    print(
        f"ops recorded per token             {moved['ops_recorded'] / tokens:.0f}, executions {moved['executions'] / tokens:.1f}"
    )
    print(f"reads that crossed the wire        {moved['round_trips']} of {moved['reads']}")
    print(f"fallback ops                       {stats['fallbacks']}")
    print(f"executions per worker              {executions_by_worker()}")
    assert stats["fallbacks"] == 0, stats["fallback_ops"]
    assert stats["meta_dispatches"] == 0
    assert torch.equal(actual, expected)
    djinn.shutdown()


if __name__ == "__main__":
    main()
