"""Makes many live values on a worker, for the benchmark of a head's restart; then waits for its input to end."""

from __future__ import annotations

import sys

import djinn
import program
import torch


def main() -> str:
    djinn.init()
    one = torch.ones(4).to("remote_accelerator")
    kept = []
    for number in range(int(sys.argv[1])):
        kept.append(one + number)
        if number % 1000 == 999:
            kept[-1][0].item()
            program.say("progress", number + 1)
    sys.stdin.read()
    return "done"


program.run(main)
