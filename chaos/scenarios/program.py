"""What the programs of scenarios share: how they say how far they are, and how they end."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable

import torch


def say(*words: object) -> None:
    print(*words, flush=True)


def digest(tensors: list[torch.Tensor]) -> str:
    """The first 32 digits of the SHA-256 of the tensors' bytes, in order."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()[:32]


def run(body: Callable[[], str]) -> None:
    """Prints "result" and what the body gives, or "error" and the error's code; then ends as the body did."""
    import djinn

    try:
        result = body()
    except Exception as error:
        say("error", getattr(error, "code", type(error).__name__))
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        djinn.shutdown()
        sys.exit(0)
    say("result", result)
    djinn.shutdown()
