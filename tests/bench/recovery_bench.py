"""What recovery costs, on real processes: the pause after a kill, how soon a death is noticed, what journalling takes, a head's restart.

    tests/bench/recovery_bench.py [--only pause,detection,journal,restart] [--runs N] [--contexts 64,256] [--large]

Prints median and p95. The model is a GPT-2 of width 256 with four layers; --large: GPT-2 124M. Asserts nothing about time.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import random
import socket
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "chaos" / "scenarios"))
from crew import Crew, Program, wait_until
from pool import machine, summary

POLICIES = ("checkpoint", "replicate", "recompute")
SMALL, LARGE = ("256", "4", "1024"), ("768", "12", "50257")
SILENCE_S = 180.0
AFTER = 24  # tokens of a generation behind the kill
BLOCK_CALLS = 40
HANDLES = 100_000


def pauses(given: argparse.Namespace) -> None:
    """From kill -9 of the worker that holds the cache to the next token, by context length and policy."""
    width, layers, vocabulary = LARGE if given.large else SMALL
    print(f"\npause from kill to next token [ms], GPT-2 of width {width}, {layers} layers; {given.runs} kills each")
    print(f"{'policy':<12} {'context':>8} {'median':>9} {'p95':>9} {'token':>9}")
    for policy in POLICIES:
        for context in given.contexts:
            found, warm = [], []
            with Crew(workers=2, memory="3G" if given.large else "1G", name="bench") as crew:
                shape = ["--width", width, "--layers", layers, "--vocabulary", vocabulary, "--prompt", 16, "--recovery", policy]
                tokens = context - 16  # with the prompt: the context at the end, and AFTER tokens before it at the kill
                program = Program(crew, "generate.py", *shape, "--tokens", tokens, "--generations", given.runs)
                for run in range(given.runs):
                    program.until(run * tokens + 1, SILENCE_S)
                    serving = crew.serving()
                    crew.start_worker()  # its start is no part of the pause
                    token = (run + 1) * tokens - AFTER
                    program.until(token, SILENCE_S)
                    at = program.progress
                    struck = time.monotonic()
                    crew.kill(serving)
                    while not (later := [said for step, said in program.times.items() if said > struck and step > at]):
                        program.step(SILENCE_S)
                    found.append(max(later[0] - struck, 0.0))
                    warm += [program.times[step] - program.times[step - 1] for step in range(token - 8, token)]
            print(f"{policy:<12} {context:>8} {summary(found)} {statistics.median(warm) * 1e3:9.3f}", flush=True)


def noticed(crew: Crew, name: str, strike) -> float:
    begun = time.monotonic()
    strike()
    wait_until(lambda: name in crew.fenced(), 20, f"{name} is fenced", step=0.002)
    return time.monotonic() - begun


def detection(given: argparse.Namespace) -> None:
    """From the event to the line in the head's log that fences the worker."""
    times: dict[str, list[float]] = {"kill -9": [], "SIGSTOP": [], "partition": []}
    for _ in range(given.runs):
        with Crew(workers=3, memory="64M", name="bench") as crew:
            times["kill -9"].append(noticed(crew, "worker-1", lambda: crew.kill("worker-1")))
            times["SIGSTOP"].append(noticed(crew, "worker-2", lambda: crew.stop_for("worker-2")))
            times["partition"].append(
                noticed(crew, "worker-3", lambda: crew.chaos("partition", "head", "worker-3", "--for", "10"))
            )
    print(f"\na death is noticed after [ms]\n{'':<12} {'median':>9} {'p95':>9}")
    for what, seconds in times.items():
        print(f"{what:<12} {summary(seconds)}", flush=True)


def calls(program: Program, **asked: object) -> list[float]:
    program.process.stdin.write(json.dumps(asked) + "\n")
    program.process.stdin.flush()
    while not (line := program.step(SILENCE_S)).startswith("calls "):
        pass
    return json.loads(line[6:])


def tell(crew: Crew, name: str, line: str) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(crew.folder / "djinn" / "chaos" / f"{name}.sock"))
        peer.sendall(line.encode() + b"\n")
        assert b'"ok":1' in peer.recv(4096)


def store_bytes(crew: Crew) -> tuple[int, int]:
    """Executions in the store, and the plain bytes of everything in it."""
    found = crew.ask("store", "check")
    return found["entries"].get("execution", 0), found["plain_bytes"]


def journal_cost(durability: str, blocks: int) -> None:
    """Warm calls in alternating blocks with and without a record, in one process: the paired difference and its confidence interval."""
    with Crew(workers=1, memory="256M", head=("--durability", durability), name="bench") as crew:
        program = Program(crew, "calls.py")
        calls(program, calls=500)
        differences, with_ms, order = [], [], random.Random(1)
        for _ in range(blocks):
            both = {}
            for kind in order.sample(["on", "off"], 2):
                tell(crew, "worker-1", '{"do":"no-journal","on":1,"for":5}' if kind == "off" else '{"do":"no-journal","on":0}')
                both[kind] = statistics.median(calls(program, calls=BLOCK_CALLS))
            tell(crew, "worker-1", '{"do":"no-journal","on":0}')
            calls(program, calls=4)
            differences.append((both["on"] - both["off"]) / both["off"])
            with_ms.append(both["on"])
        mean, error = statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
        median_ms = statistics.median(with_ms) * 1e3
        print(
            f"{durability:<8} {median_ms:9.3f} ms a call; journalling adds {mean * 100:+.2f} % +- {1.96 * error * 100:.2f} %",
            flush=True,
        )


def journal(given: argparse.Namespace) -> None:
    """What a record costs and weighs, and how many executions a second are acknowledged."""
    print(f"\na warm call with its record, against one without (paired, {given.blocks} blocks of {BLOCK_CALLS}; 95 % confidence)")
    for durability in ("memory", "os", "disk"):
        journal_cost(durability, given.blocks)
    with Crew(workers=1, memory="256M", name="bench") as crew:
        program = Program(crew, "calls.py")
        calls(program, calls=200)
        count, begun = 5000, time.monotonic()
        before = crew.status()["sessions"][0]["watermark"]
        calls(program, calls=count)
        done = time.monotonic()
        wait_until(lambda: crew.status()["sessions"][0]["watermark"] - before >= count, 30, "all is acknowledged")
        print(
            f"\nexecutions acknowledged (disk): {count / (time.monotonic() - begun):.0f} a second; answered: {count / (done - begun):.0f}"
        )
    with Crew(workers=1, memory="1G", name="bench") as crew:
        width, layers, vocabulary = SMALL
        shape = ["--width", width, "--layers", layers, "--vocabulary", vocabulary]
        program = Program(crew, "generate.py", *shape, "--tokens", 400, "--pause", 0.01)
        program.until(100, SILENCE_S)
        time.sleep(1)
        first = (program.progress, store_bytes(crew))
        program.until(380, SILENCE_S)
        second = (program.progress, store_bytes(crew))
        records = second[1][0] - first[1][0]
        print(f"journal: {(second[1][1] - first[1][1]) / max(1, records):.0f} bytes a record, {records} records", flush=True)


def restart(given: argparse.Namespace) -> None:
    """A head that is killed with many live handles, from its start until its worker has joined and told what it holds."""
    found = []
    with Crew(workers=1, memory="1G", name="bench") as crew:
        program = Program(crew, "handles.py", HANDLES)
        program.until(HANDLES, 600.0)
        time.sleep(2)
        live = crew.status().get("handles", {}).get("live", 0)
        for _ in range(given.runs):
            crew.kill("head")
            begun = time.monotonic()
            crew.start_head()
            wait_until(
                lambda: crew.status().get("handles", {}).get("live", 0) >= HANDLES, 60, "the head knows the handles again", 0.01
            )
            found.append(time.monotonic() - begun)
    print(f"\na head's restart with {live} live handles [ms]: {summary(found)}  (median, p95)", flush=True)


PARTS = {"pause": pauses, "detection": detection, "journal": journal, "restart": restart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--contexts", default="64,256,1024", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--blocks", type=int, default=120, help="of warm calls, with a record and without")
    given = parser.parse_args()
    print(machine())
    for part in given.only.split(","):
        PARTS[part](given)


if __name__ == "__main__":
    main()
