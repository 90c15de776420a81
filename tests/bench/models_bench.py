"""Whole models, remote over loopback against local PyTorch eager, interleaved in one run.

Each figure is the time until the value is in Python. One worker has as many threads as local PyTorch; journal and durability are at
their defaults. Models are built from their configurations with a fixed seed. ``--quick`` takes fewer rounds; names choose models.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import pool as bench

warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
REMOTE = "remote_accelerator"
CONTEXT = 128


def gpt2() -> torch.nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config())


def bert() -> torch.nn.Module:
    return transformers.BertModel(transformers.BertConfig())


def minilm() -> torch.nn.Module:
    return transformers.BertModel(
        transformers.BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    )


def vit() -> torch.nn.Module:
    return transformers.ViTModel(transformers.ViTConfig())


def resnet() -> torch.nn.Module:
    return transformers.ResNetForImageClassification(transformers.ResNetConfig())


def first(output: object) -> torch.Tensor:
    for name in ("logits", "last_hidden_state"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    raise TypeError(type(output))


class Decode:
    """Greedy decoding at a context of about 128: a prefill that is not timed, then steps that are, each token read."""

    steps = 16

    def __init__(self, model: torch.nn.Module, device: str) -> None:
        self.model, self.device = model, device
        self.tokens: list[int] = []

    def round(self, ids: torch.Tensor) -> list[float]:
        output = self.model(input_ids=ids.to(self.device), use_cache=True)
        cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)
        self.tokens = [token.item()]
        times = []
        for _ in range(self.steps):
            start = time.perf_counter()
            output = self.model(input_ids=token, past_key_values=cache, use_cache=True)
            cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)
            self.tokens.append(token.item())
            times.append(time.perf_counter() - start)
        return times[2:]


def forward_round(model: torch.nn.Module, inputs: torch.Tensor, device: str, keep: list) -> list[float]:
    start = time.perf_counter()
    output = first(model(inputs.to(device)))
    if output.dim() == 3 and output.shape[-1] > 10000:
        output = output[:, -1]
    keep[:] = [output.cpu()]
    return [time.perf_counter() - start]


def tokens(batch: int, length: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 30000, (batch, length), generator=generator)


def pictures(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(1, 3, 224, 224, generator=generator)


CASES: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[torch.Generator], torch.Tensor] | None]] = {
    "gpt2-decode-128": (gpt2, None),
    "gpt2-prefill-128": (gpt2, lambda g: tokens(1, CONTEXT, g)),
    "bert-base-128": (bert, lambda g: tokens(1, CONTEXT, g)),
    "minilm-128": (minilm, lambda g: tokens(1, CONTEXT, g)),
    "vit-b16": (vit, pictures),
    "resnet-50": (resnet, pictures),
}


def stats_difference(before: dict, after: dict, steps: int) -> str:
    """Per step: where the time and the bytes went."""

    def per(name: str) -> float:
        return (after.get(name, 0) - before.get(name, 0)) / steps

    return (
        f"record {per('record_ns') / 1e6:.3f} ms, flush {per('flush_ns') / 1e6:.3f} ms, wait {per('wait_ns') / 1e6:.3f} ms "
        f"(bind {per('bind_ns') / 1e6:.3f}, execute {per('execute_ns') / 1e6:.3f}); ops {per('ops_submitted'):.0f}, "
        f"executions {per('executions'):.2f}, round trips {per('round_trips'):.2f}, bytes out {per('bytes_out'):.0f}, in {per('bytes_in'):.0f}"
    )


def run_case(name: str, rounds: int, djinn: object, pool: bench.Pool) -> None:
    make, inputs = CASES[name]
    torch.manual_seed(0)
    local = make().eval()
    torch.manual_seed(0)
    remote = make().eval().to(REMOTE)
    generator = torch.Generator().manual_seed(1)
    local_s: list[float] = []
    remote_s: list[float] = []
    worst, same, steps = 0.0, True, 0
    decoders = (Decode(local, "cpu"), Decode(remote, REMOTE))
    before: dict = {}
    for index in range(rounds + 2):
        if index == 2:
            pool.settle()
            before, local_s, remote_s, steps = djinn.stats(), [], [], 0
        if inputs is None:
            ids = tokens(1, CONTEXT - 8, generator)
            remote_s += decoders[1].round(ids)
            local_s += decoders[0].round(ids)
            same &= decoders[0].tokens == decoders[1].tokens
            steps += Decode.steps
        else:
            data, kept_local, kept_remote = inputs(generator), [], []
            remote_s += forward_round(remote, data, REMOTE, kept_remote)
            local_s += forward_round(local, data, "cpu", kept_local)
            error = (kept_local[0] - kept_remote[0]).abs().max() / max(1.0, kept_local[0].abs().max().item())
            worst = max(worst, error.item())
            steps += 1
    after = djinn.stats()
    ratio = statistics.median(remote_s) / statistics.median(local_s)
    parity = ("tokens equal" if same else "TOKENS DIFFER") if inputs is None else f"parity {worst:.1e}"
    print(f"{name:18} {bench.summary(local_s)} {bench.summary(remote_s)} {ratio:7.3f}  {parity}", flush=True)
    print(f"{'':18} {stats_difference(before, after, steps)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="cases whose names contain one of these; default all")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    threads = torch.get_num_threads()
    pool = bench.Pool(workers=1, threads=threads)
    try:
        import djinn

        print(f"{bench.machine()}; {threads} threads each; torch {torch.__version__}")
        print(f"{'':18} {'local, ms':>19} {'remote, ms':>19}")
        print(f"{'case':18} {'median':>9} {'p95':>9} {'median':>9} {'p95':>9} {'ratio':>7}")
        with torch.no_grad():
            for name in CASES:
                if not options.names or any(word in name for word in options.names):
                    run_case(name, 3 if options.quick else 12, djinn, pool)
        print(f"fallback ops: {djinn.stats().get('fallback_ops', 0)}")
        djinn.shutdown()
    finally:
        pool.close()


if __name__ == "__main__":
    main()
