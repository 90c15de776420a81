"""Life of the process: threads, forks, Ctrl-C, imports, errors that come late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import djinn
import pytest
import torch
from parity import DEVICE, assert_close


def test_importing_starts_nothing(run_python) -> None:
    program = """
import os, threading, torch
threads, files = len(os.listdir("/proc/self/task")), set(os.listdir("/proc/self/fd"))
import djinn
assert threading.active_count() == 1
assert len(os.listdir("/proc/self/task")) == threads, "a thread"
assert set(os.listdir("/proc/self/fd")) == files, "an open file"
assert not djinn.is_initialized()
assert torch.remote_accelerator.is_available() and not djinn.is_initialized()
torch.manual_seed(1)
torch.ones(2, requires_grad=True).sum().backward()
assert not djinn.is_initialized()
print("quiet")
"""
    done = run_python(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "quiet\n"


def test_several_threads_record_and_read_at_once() -> None:
    torch.manual_seed(0)
    weights = torch.randn(16, 16).mul(0.2)  # small enough for rounding errors not to grow from step to step
    remote = weights.to(DEVICE)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            x = torch.randn(4, 16, generator=torch.Generator().manual_seed(seed))
            y = x.to(DEVICE)
            for _ in range(20):
                x, y = torch.tanh(x @ weights), torch.tanh(y @ remote)
                assert_close(y.sum(), x.sum(), 1e-4)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)


def test_a_forked_child_is_told_and_can_have_its_own_session() -> None:
    x = torch.ones(3, device=DEVICE) + 1
    assert x.sum().item() == 6
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b"nothing"
        try:
            try:
                (x + 1).cpu()
                answer = b"no error"
            except RuntimeError as error:
                answer = b"told" if "fork" in str(error).lower() else repr(error).encode()
            djinn.init()
            own = torch.ones(3, device=DEVICE).mul(2).sum().item()
            answer += b", own session" if own == 6 else b", wrong value"
        except BaseException as error:
            answer += b"; " + repr(error).encode()
        finally:
            os.write(write_end, answer)
            os._exit(0)
    os.close(write_end)
    deadline = time.monotonic() + 30
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the forked child hangs")
        time.sleep(0.02)
    assert os.read(read_end, 1000) == b"told, own session"
    assert (x + 1).tolist() == [3, 3, 3]


def test_ctrl_c_interrupts_a_wait(cluster: dict[str, str]) -> None:
    program = """
import signal, torch, djinn, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
djinn.init()
x = torch.randn(1500, 1500, device="remote_accelerator")
for _ in range(80):  # seconds, also on a fast machine; the tests behind it wait for the rest
    x = (x @ x).tanh()
print("waiting", flush=True)
try:
    x.sum().item()
    print("finished")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    environment = dict(cluster)
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        process.wait(20)
    finally:
        process.kill()
        process.communicate()


def test_a_deferred_error_names_the_op_and_the_line_that_recorded_it() -> None:
    table = torch.ones(4, 2, device=DEVICE)
    row = torch.nn.functional.embedding(torch.tensor([9], device=DEVICE), table)  # the line
    with pytest.raises(RuntimeError) as caught:
        row.cpu()
    text = str(caught.value)
    assert "EMBEDDING" in text.upper()
    assert "functional.py" in text or "process_test.py" in text
    assert isinstance(caught.value, djinn.DjinnError)
    assert caught.value.code == "INDEX"
    assert isinstance(caught.value, IndexError)


def test_work_goes_on_after_an_error() -> None:
    with pytest.raises(RuntimeError):
        torch.ones(2, 3, device=DEVICE) @ torch.ones(2, 3, device=DEVICE)
    assert torch.ones(2, device=DEVICE).sum().item() == 2


def test_a_wrong_address_says_what_to_do(run_python) -> None:
    done = run_python(
        'import djinn\ntry:\n    djinn.init("127.0.0.1:1", token="0" * 32, timeout=3)\nexcept djinn.DjinnError as e:\n    print(type(e).__name__, e.code, e)'
    )
    assert done.returncode == 0, done.stderr
    assert "UnreachableError" in done.stdout and "127.0.0.1:1" in done.stdout


def test_shutting_down_twice_is_harmless_and_tensors_say_closed(run_python) -> None:
    program = """
import torch, djinn
x = torch.ones(2, device="remote_accelerator") + 1
assert x.sum().item() == 4
djinn.shutdown(); djinn.shutdown()
try:
    x.cpu(); print("no error")
except djinn.DjinnError as e:
    print(e.code)
"""
    done = run_python(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "CLOSED\n"


def test_a_process_that_never_shuts_down_ends_cleanly(run_python) -> None:
    done = run_python('import torch, djinn\nx = torch.ones(3, device="remote_accelerator") + 1\nprint(x.sum().item())')
    assert (done.returncode, done.stdout) == (0, "6.0\n"), done.stderr
