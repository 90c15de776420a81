"""A client of cluster_live.py: runs the code that comes as JSON strings on its input, one a line, and answers each with one line of JSON."""

from __future__ import annotations

import json
import linecache
import os
import signal
import sys
import time

import djinn
import torch

FILE = "program.py"  # what the lines' code objects are called


def tell(stream, **said: object) -> None:
    stream.write(json.dumps(said) + "\n")
    stream.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a print goes to the log
    names = {"torch": torch, "djinn": djinn, "time": time, "D": "remote_accelerator", "R": torch.device("remote_accelerator")}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background was started with it ignored
    djinn.init(session=str(os.getpid()))
    for line in sys.stdin:
        code = json.loads(line)
        names["answer"] = None
        linecache.cache[FILE] = (len(code), None, code.splitlines(keepends=True), FILE)
        begun = time.monotonic()
        try:
            try:
                value = eval(compile(code.strip(), FILE, "eval"), names)
            except SyntaxError:
                exec(compile(code, FILE, "exec"), names)
                value = names["answer"]
            tell(answers, value=value, seconds=time.monotonic() - begun)
        except Exception as error:
            tell(
                answers,
                classes=[kind.__name__ for kind in type(error).__mro__],
                text=str(error),
                seconds=time.monotonic() - begun,
                **{key: getattr(error, key, "") for key in ("code", "op", "module", "site")},
            )
    djinn.shutdown()


main()
