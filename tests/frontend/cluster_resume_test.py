"""Whole programs on a live pool: a generation whose worker is killed, a program killed and run again under its session's name, checkpoints by tag."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_live import Pool, live_pool, wait_until

# A small GPT-2 that generates step by step; says each token, and at the end whether they were the local CPU's.
GENERATE = """
import json, sys, time
import torch, djinn
from transformers import GPT2Config, GPT2LMHeadModel

djinn.init(session=NAME)
torch.manual_seed(0)
config = GPT2Config(n_layer=2, n_head=2, n_embd=64, n_positions=128, vocab_size=512, initializer_range=0.2)
model = GPT2LMHeadModel(config).eval()
prompt = torch.randint(0, 512, (1, 8), generator=torch.Generator().manual_seed(1))


def generate(model, prompt, tell):
    tokens, cache, step = [], None, prompt
    with torch.no_grad():
        for number in range(TOKENS):
            out = model(step, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            step = out.logits[:, -1:].argmax(-1)
            tokens.append(int(step))
            if tell:
                print(json.dumps({"token": number}), flush=True)
                time.sleep(PAUSE)
    return tokens


expected = generate(model, prompt, False)
actual = generate(model.to("remote_accelerator"), prompt.to("remote_accelerator"), True)
stats = djinn.stats()
print(json.dumps({"equal": actual == expected, "recoveries": stats["recoveries"], "resumed": stats["resumed"],
                  "executions": stats["executions"], "replayed": stats["replayed"]}), flush=True)
"""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Pool]:
    with live_pool(tmp_path) as pool:
        yield pool


class Program:
    """A Python program as its own process; says JSON, a line at a time."""

    def __init__(self, live: Pool, code: str, **names: Any) -> None:
        given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        self.log = live.folder / f"program-{time.monotonic_ns()}.log"
        self.output = self.log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", given + textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=self.output,
            env={**live.environment, "HF_HUB_OFFLINE": "1"},
        )

    def wait_for(self, token: int) -> None:
        for line in self.process.stdout:
            if json.loads(line).get("token") == token:
                return
        raise AssertionError(f"it ended before token {token}:\n{self.log.read_text(errors='replace')}")

    def result(self) -> dict[str, Any]:
        """Its last line; it must end well within a minute."""
        try:
            out, _ = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it hangs:\n{self.log.read_text(errors='replace')}") from None
        text = self.log.read_text(errors="replace")
        assert self.process.returncode == 0, text
        return {**json.loads(out.decode().splitlines()[-1]), "stderr": text}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


def worker_of(live: Pool, session: str) -> str:
    rows = [row for row in live.status()["sessions"] if row["name"] == session]
    return rows[0]["grants"][-1]["worker"]


def test_a_generation_goes_on_at_the_other_worker(live: Pool) -> None:
    live.head()
    workers = {name: live.worker(name) for name in ("one", "two")}
    program = Program(live, GENERATE, NAME="a", TOKENS=24, PAUSE=0.01)
    for token in (5, 15):
        program.wait_for(token)
        name = worker_of(live, "a")
        workers[name].process.kill()
        wait_until(lambda name=name: name not in live.workers(), 10, "it is gone")
        workers[f"{name}x"] = live.worker(f"{name}x")
    result = program.result()
    assert result["equal"]
    assert result["recoveries"] >= 2 and result["stderr"].count(" was lost; ") >= 2, result


def test_a_generation_waits_for_the_only_worker_to_be_started_again(live: Pool) -> None:
    live.head()
    worker = live.worker("only")
    program = Program(live, GENERATE, NAME="b", TOKENS=20, PAUSE=0.01)
    program.wait_for(7)
    worker.process.kill()
    time.sleep(0.7)
    live.worker("again")
    assert program.result()["equal"]


def test_a_generation_does_not_notice_that_its_head_is_another_one(live: Pool) -> None:
    head = live.head()
    live.worker("one")
    program = Program(live, GENERATE, NAME="c", TOKENS=30, PAUSE=0.03)
    program.wait_for(7)
    head.process.kill()
    head.process.wait(10)
    live.head()
    result = program.result()
    assert result["equal"] and result["recoveries"] == 0


def test_a_program_killed_and_run_again_is_answered_from_its_records(live: Pool) -> None:
    live.head()
    live.worker("one")
    first = Program(live, GENERATE, NAME="again", TOKENS=24, PAUSE=0.05)
    first.wait_for(12)
    first.kill()
    second = Program(live, GENERATE, NAME="again", TOKENS=24, PAUSE=0.0)
    result = second.result()
    assert result["equal"], result
    assert result["resumed"] >= 12, result
    third = Program(live, GENERATE, NAME="again", TOKENS=4, PAUSE=0.0).result()
    assert third["equal"] and third["resumed"] == 0, "a clean end forgets the session"


def test_a_program_that_dies_twice_and_its_worker_too_ends_right(live: Pool) -> None:
    live.head()
    worker = live.worker("one")
    for token in (6, 12):
        program = Program(live, GENERATE, NAME="often", TOKENS=20, PAUSE=0.05)
        program.wait_for(token)
        time.sleep(0.2)
        program.kill()
        worker.process.kill()
        worker = live.worker(f"after{token}")
    result = Program(live, GENERATE, NAME="often", TOKENS=20, PAUSE=0.0).result()
    assert result["equal"] and result["resumed"] >= 10, result


def test_an_exception_keeps_the_session_and_a_clean_end_forgets_it(live: Pool) -> None:
    live.head()
    live.worker("one")
    code = """
        import json, torch, djinn
        djinn.init(session="kept")
        x = torch.ones(4, device="remote_accelerator") * 3
        print(json.dumps({"sum": x.sum().item(), "resumed": djinn.stats()["resumed"]}), flush=True)
        assert not FAILS
    """
    failing = Program(live, code, FAILS=True)
    assert failing.process.wait(60) != 0
    failing.process.stdout.close()
    assert Program(live, code, FAILS=False).result()["resumed"] >= 1
    assert Program(live, code, FAILS=False).result()["resumed"] == 0


def test_a_second_program_of_the_same_name_takes_the_session_over(live: Pool) -> None:
    live.head()
    live.worker("one")
    first, second = live.client(), live.client()
    first.run("djinn.shutdown(); djinn.init(session='mine')")
    first.run("x = torch.ones(3, device=D) * 2; answer = x.sum().item()")
    second.run("djinn.shutdown(); djinn.init(session='mine')")
    failed = first.fails("(x + 1).sum().item()", timeout=20)
    assert failed.code == "EPOCH_FENCED" and "mine" in failed.text, (failed.code, failed.text)
    assert second.run("(torch.ones(3, device=D) * 2).sum().item()") == 6


def test_a_checkpoint_is_restored_by_another_program_and_another_worker(live: Pool) -> None:
    live.head()
    worker = live.worker("one")
    first = live.client()
    first.run(
        """
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64)).to(D)
        grown = torch.cat([torch.arange(6.0, device=D).reshape(2, 3), torch.ones(2, 3, device=D)])
        kept = {"model": model.state_dict(), "list": [grown.t(), torch.tensor(7.5)], "step": 12, 3: (None, "words", grown[:0])}
        djinn.checkpoint("run/5", kept)
        answer = [float(p.sum().item()) for p in model.parameters()]
        """
    )
    sums = first.run("answer_was = [float(p.sum().item()) for p in model.parameters()]\nanswer = answer_was")
    first.end()
    worker.process.kill()
    live.worker("two")
    second = live.client()
    second.run('back = djinn.restore("run/5")')
    assert second.run("[float(p.sum().item()) for p in back['model'].values()]") == sums
    assert second.run("[back['step'], back[3][0], back[3][1], list(back[3][2].shape)]") == [12, None, "words", [0, 3]]
    assert second.run("[back['list'][0].cpu().tolist(), back['list'][1].item(), str(back['list'][1].device)]") == [
        [[0.0, 3.0, 1.0, 1.0], [1.0, 4.0, 1.0, 1.0], [2.0, 5.0, 1.0, 1.0]],
        7.5,
        "cpu",
    ]
    missing = second.fails('djinn.restore("nothing")')
    assert missing.code == "NOT_FOUND"
    second.run('djinn.checkpoint("run/5", back["list"][0] * 2)')
    assert second.run('djinn.restore("run/5").cpu()[0].tolist()') == [0.0, 6.0, 2.0, 2.0], "the tag names the newer one"


def test_an_interrupt_ends_the_wait_for_a_worker(live: Pool) -> None:
    live.head()
    worker = live.worker("one")
    client = live.client()
    client.run("x = torch.ones(4, device=D) * 2\nx.sum().item()")
    worker.process.kill()
    client.send("try:\n    (x + 1).cpu()\nexcept KeyboardInterrupt:\n    answer = 'stopped'")
    time.sleep(0.5)
    os.kill(client.pid, signal.SIGINT)
    assert client.receive(10) == "stopped"


def test_a_pool_without_workers_is_given_one_of_this_machine_where_that_is_allowed(live: Pool) -> None:
    live.head()
    worker = live.worker("one")
    client = live.client()
    client.run("djinn.shutdown(); djinn.init(session='alone', allow_local=True, threads=1)")
    client.run("x = torch.arange(4.0, device=D) * 2\nx.sum().item()")
    worker.process.kill()
    assert client.run("(x + 1).sum().item()", timeout=30) == 16
    name = worker_of(live, "alone")
    assert name == f"local-{client.pid}"
    assert "one was started on this machine" in client.log.read_text()
    pid = live.workers()[name]["pid"]
    client.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 15, "it ends with the client")
