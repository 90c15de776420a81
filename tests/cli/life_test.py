"""Servers from their start to their end, as a user or a service manager sees them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

import frames
from live import DJINN, DONE, ROOT, Pool, cpu_seconds, is_alive, rss_kib, wait_until

EMBEDDED_PARENT = """
import os, subprocess, sys, time
read, write = os.pipe()
child = subprocess.Popen([sys.argv[1], "embedded", "--state", sys.argv[2], "--threads", "1", "--memory", "256M", "--liveness-fd", str(read)],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(sys.argv[3], "wb"), pass_fds=[read], text=True)
os.close(read)
print(child.pid, child.stdout.readline().strip(), flush=True)
time.sleep(60)
"""


def test_a_head_and_two_workers_start_serve_and_stop(pool: Pool) -> None:
    head = pool.start_head()
    workers = [pool.start_worker("one"), pool.start_worker("two")]
    status = pool.status()
    assert status["generation"] == 1 and status["pid"] == head.pid and status["address"] == pool.address
    assert sorted(worker["name"] for worker in status["workers"]) == ["one", "two"]
    assert {worker["pid"] for worker in status["workers"]} == {worker.pid for worker in workers}
    assert sorted(worker["devices"][0]["index"] for worker in status["workers"]) == [0, 1]
    table = pool.run("status").stdout
    assert pool.address in table and re.search(r"^one +serving +cpu:\d", table, re.M) and re.search(r"^two +serving", table, re.M)
    assert pool.answer("plan") == {"count": 0, "plans": []}
    done = pool.run("stop")
    assert (done.returncode, done.stdout) == (DONE, "djinn: stopped\n")
    assert head.wait(1) == DONE, "stop returned before the head was gone"
    assert [worker.wait() for worker in workers] == [DONE, DONE]


def test_a_folder_can_be_used_again_as_soon_as_stop_returns(pool: Pool) -> None:
    for generation in (1, 2, 3):
        pool.start_head(name=f"head-{generation}")
        assert pool.status()["generation"] == generation
        assert pool.run("stop").returncode == DONE


def test_sigterm_and_sigint_drain_and_end_with_0(pool: Pool) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        head = pool.start_head(name=f"head-{number}")
        worker = pool.start_worker(f"worker-{number}")
        socket = pool.worker(f"worker-{number}")["address_unix"].removeprefix("unix://")
        assert os.path.exists(socket)
        worker.popen.send_signal(number)
        assert worker.wait() == DONE, worker.text()
        assert not os.path.exists(socket)
        wait_until(lambda: pool.worker_names() == [], 1, "the head forgets a worker that left")
        head.popen.send_signal(number)
        assert head.wait() == DONE, head.text()


def test_stop_ends_sessions_of_idle_clients_too(pool: Pool) -> None:
    pool.start_head()
    worker = pool.start_worker("one")
    with frames.Peer(pool.address) as client:
        client.say(frames.hello(pool.token(), frames.CLIENT) + frames.session_open())
        assert [client.hear().message for _ in range(2)] == [frames.HELLO_OK, frames.SESSION_GRANT]
        asked = pool.start("stop", "stop")
        wait_until(lambda: "asked to stop" in pool.head.text(), 5, "the head hears it")
        with frames.Peer(pool.address) as late:
            late.say(frames.hello(pool.token(), frames.CLIENT) + frames.session_open())
            assert late.hear().message == frames.HELLO_OK and "stopping" in late.hear().failed()[2]
        assert asked.wait() == DONE
        assert "the head is stopping" in client.hear_all()[-1].failed()[2]
    assert (worker.wait(2), pool.head.wait(2)) == (DONE, DONE)


def test_a_head_that_is_terminated_leaves_its_workers_to_the_next(pool: Pool) -> None:
    head, worker = pool.start_head(), pool.start_worker("loyal")
    assert head.terminate() == DONE
    pool.start_head(listen=pool.address, name="next")
    wait_until(lambda: pool.worker_names() == ["loyal"], 10, "the worker finds the next head")
    assert worker.popen.poll() is None


def test_a_detached_server_prints_its_ready_line_and_stays(pool: Pool) -> None:
    done = pool.run("start", "--head", "--detach", "--listen", "127.0.0.1:0")
    assert done.returncode == DONE, done.stderr
    address = re.fullmatch(r"djinn: ready at (127\.0\.0\.1:\d+)\n", done.stdout)
    assert address, done.stdout
    pool.environment["DJINN_ADDRESS"] = pool.address = address[1]
    pool.pids.append(pool.status()["pid"])
    done = pool.run("start", "--worker", "--detach", "--name", "behind", "--threads", "1", "--memory", "256M")
    assert done.returncode == DONE, done.stderr
    worker = wait_until(lambda: pool.status()["workers"], 5, "the worker joins")[0]
    pool.pids.append(worker["pid"])
    assert worker["name"] == "behind"
    assert len(list(pool.state.glob("*.log"))) == 2
    assert pool.run("stop").returncode == DONE
    wait_until(lambda: not any(map(is_alive, pool.pids)), 5, "both end")


def test_a_detached_server_that_cannot_start_says_why_and_how_it_ended(pool: Pool) -> None:
    pool.start_head()
    said = pool.refused(1, "start", "--head", "--detach", "--listen", pool.address, "--state", str(pool.folder / "other"))
    assert "Address in use" in said and "its log is" in said
    assert "CUDA" in pool.refused(4, "start", "--worker", "--detach", "--gpus", "all")


def test_an_embedded_pair_dies_with_its_parent(pool: Pool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", EMBEDDED_PARENT, str(DJINN), str(pool.state), str(pool.folder / "embedded.log")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=pool.environment,
    )
    try:
        assert parent.stdout is not None
        pid, _, line = parent.stdout.readline().strip().partition(" ")
        pool.pids.append(int(pid))
        assert line.startswith("djinn: ready at ")
        pool.environment["DJINN_ADDRESS"] = line.rpartition(" ")[2]
        wait_until(lambda: pool.worker_names() == ["embedded"], 5, "the worker joins")
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_alive(int(pid)), 5, "the child ends")


def test_the_token_is_a_secret_of_its_user(pool: Pool) -> None:
    pool.start_head()
    token = pool.state / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and re.fullmatch(r"[0-9a-f]{32}\n", token.read_text())
    assert stat.S_IMODE(pool.state.stat().st_mode) == 0o700


def test_an_idle_worker_is_small_and_quiet(pool: Pool) -> None:
    head, worker = pool.start_head(), pool.start_worker("idle")
    begun, spent = time.monotonic(), cpu_seconds(worker.pid) + cpu_seconds(head.pid)
    time.sleep(3)
    spent = cpu_seconds(worker.pid) + cpu_seconds(head.pid) - spent
    print(
        f"worker {rss_kib(worker.pid)} KiB, head {rss_kib(head.pid)} KiB, both {100 * spent / (time.monotonic() - begun):.2f} % of a core"
    )
    assert rss_kib(worker.pid) < 50 << 10
    assert rss_kib(head.pid) < 50 << 10


def test_help_and_version_are_everywhere(pool: Pool) -> None:
    listed = pool.run("--help").stdout
    commands = re.findall(r"^  (\w+)  +\w", listed.partition("Commands:\n")[2].partition("\n\n")[0], re.M)
    assert {"start", "stop", "status", "plan", "srg", "config", "doctor", "chaos", "embedded"} <= set(commands)
    for command in commands:
        by_option, by_word = pool.run(command, "--help"), pool.run("help", command)
        assert by_option.returncode == by_word.returncode == DONE and by_option.stdout == by_word.stdout, command
        assert f"Usage: djinn {command}" in by_option.stdout and "xit" in by_option.stdout, command
        assert pool.run(command, "--version").stdout == pool.run("--version").stdout


def test_man_pages_are_made_from_help_and_are_well_formed(pool: Pool) -> None:
    folder = pool.folder / "man" / "man1"
    subprocess.run([sys.executable, ROOT / "cli" / "man-pages", DJINN, folder], check=True, timeout=30)
    pages = {page.name: page for page in folder.iterdir()}
    assert {"djinn.1", "djinn-start.1", "djinn-status.1"} <= set(pages)
    for page in pages.values():
        text = page.read_text()
        assert ".SH SYNOPSIS" in text and ".SH EXIT" in text, page.name
        if shutil.which("groff"):
            done = subprocess.run(
                ["groff", "-man", "-Tascii", "-ww", page], capture_output=True, text=True, timeout=30, check=False
            )
            assert (done.returncode, done.stderr) == (0, ""), page.name


def test_doctor_says_what_there_is_and_what_is_missing(pool: Pool) -> None:
    pool.environment["DJINN_CUDA_PATH"] = "-"  # nothing is searched: a machine without CUDA
    told = pool.run("doctor")
    assert told.returncode == DONE, told.stderr
    for words in ("cpu kernels", "threads for kernels", "libcuda.so.1 is nowhere to be found", "install the NVIDIA driver"):
        assert words in told.stdout
    for package in ("nvidia-cuda-runtime", "nvidia-cublas", "nvidia-cudnn-cu13"):
        assert f"pip install {package}" in told.stdout
    answer = json.loads(pool.run("doctor", "--json").stdout)
    parts = {part["name"]: part for part in answer["cuda_parts"]}
    assert {"driver", "runtime", "cublasLt", "cudnn"} <= set(parts)
    assert parts["driver"]["is_needed"] and not parts["driver"]["is_found"] and parts["driver"]["problem"]
    assert answer["is_gpu_usable"] is False and answer["gpus"] == [] and answer["problems"] == 0
