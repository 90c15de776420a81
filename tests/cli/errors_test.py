"""What goes wrong is said in words that help, and with the exit code that docs/cli.md promises."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import frames
import pytest
from live import DONE, FAILED, NO_DEVICE, UNREACHABLE, USAGE, Pool, wait_until

SMALL_DISK_BYTES = 1 << 20


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# Command line and configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("statsu", ['no command "statsu"', "did you mean status?"]),
        ("help strat", ['no command "strat"', "did you mean start?"]),
        ("zzzzzz", ['no command "zzzzzz"', "--help"]),
        ("start --head --lisen :0", ["no option --lisen", "did you mean --listen?"]),
        ("status --jsn", ["no option --jsn", "did you mean --json?"]),
        ("status --frobnicate", ["no option --frobnicate", "djinn status --help"]),
        ("start", ["--head", "--worker"]),
        ("start --head 127.0.0.1:7070", ["only with --worker", "--listen"]),
        ("start --head --listen", ["--listen", "requires an argument"]),
        ("start --head --listen nonsense:port", ['"nonsense:port" is not an address', "HOST:PORT"]),
        ("start --head --listen 127.0.0.1:70000", ["is not an address"]),
        ("start --head --durability always", ["memory, os or disk", "always"]),
        ("start --worker --head 127.0.0.1:port", ["is not an address"]),
        ("start --worker --gpus some", ["all, none or numbers", "some"]),
        ("start --worker --gpus 0,0", ["all, none or numbers", "0,0"]),
        ("start --worker --gpus 0,", ["all, none or numbers"]),
        ("start --worker --gpus 64", ["all, none or numbers"]),
        ("start --worker --threads 0", ["--threads takes a number from 1 to 1024"]),
        ("start --worker --threads -2", ["--threads takes a number"]),
        ("start --worker --memory 12Q", ["--memory takes at least 1M", "12Q"]),
        ("start --worker --memory 99999999999999T", ["--memory"]),
        ("start --worker --name " + "n" * 64, ["1 to 63 characters"]),
        ("status --head a:b", ["is not an address"]),
        ("status extra", ["'extra' is one argument too many"]),
        ("plan a b", ["'b' is one argument too many"]),
        ("srg show", ["djinn srg show|export|import"]),
        ("srg draw x", ["djinn srg show|export|import"]),
        ("config", ["djinn config check"]),
        ("embedded --threads many", ["--threads takes a number"]),
        ("embedded --liveness-fd 77", ["open descriptor"]),
    ],
)
def test_a_mistyped_line_is_answered_with_what_to_write(pool: Pool, line: str, words: list[str]) -> None:
    said = pool.refused(USAGE, *line.split())
    assert all(word in said for word in words), said


def test_an_option_may_be_shortened_and_its_value_may_look_like_an_option(pool: Pool) -> None:
    assert "no head answers" in pool.refused(UNREACHABLE, "status", "--hea", f"127.0.0.1:{free_port()}", "--state", "--statt")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["head:", "  lisen: 127.0.0.1:0"], [":2:", 'no key "lisen" in head', "did you mean listen?"]),
        (["haed:", "  listen: 127.0.0.1:0"], [":1:", 'no section "haed"', "did you mean head?"]),
        (["head:", "  listen: 1", "  listen: 2"], [":3:", "given twice", "remove one"]),
        (["head:", "  listen: here:there"], [":2:", 'head.listen cannot be "here:there"', "HOST:PORT"]),
        (["# a comment", "worker:", "  memory: lots"], [":3:", "worker.memory", "K, M, G or T"]),
        (["worker:", "  gpus: -1"], [":2:", "worker.gpus", "all, none or numbers"]),
        (["log:", "  level: loud"], [":2:", "debug, info or warn"]),
        (["head: 7"], [":1:", "head is a section"]),
        (["head:", "  listen: [1, 2]"], [":2:", "one plain value"]),
        (["- head"], [":1:", "not a mapping"]),
        (["head:", " listen: 1", "  state: 2"], [":3:", "check indentation"]),
        (["head:", "\tlisten: 1"], [":2:", "check indentation"]),
    ],
)
def test_a_configuration_is_refused_with_file_line_key_and_remedy(pool: Pool, lines: list[str], words: list[str]) -> None:
    path = pool.folder / "config.yaml"
    path.write_text("\n".join(lines) + "\n")
    for command in (["config", "check", str(path)], ["start", "--head", "--config", str(path)]):
        said = pool.refused(USAGE, *command)
        assert all(word in said for word in [f"{path}:", *words]), said


def test_a_valid_configuration_is_used_and_the_command_line_goes_before_it(pool: Pool) -> None:
    path = pool.folder / "config" / "djinn" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"head:\n  listen: 127.0.0.1:1\n  state: {pool.folder / 'configured'}\n")
    assert "head.listen: 127.0.0.1:1" in pool.run("config", "check").stdout
    pool.start_head()
    assert (pool.folder / "configured" / "token").exists()
    assert "cannot read the configuration" in pool.refused(USAGE, "config", "check", str(pool.folder / "none.yaml"))


# Addresses, heads and tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "plan", "stop", "srg show 12"])
def test_no_head_is_said_with_how_to_start_one(pool: Pool, command: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = pool.refused(UNREACHABLE, *command.split(), "--head", address)
    assert address in said and "djinn start --head" in said and "refused" in said


def test_a_host_that_does_not_exist_is_named(pool: Pool) -> None:
    said = pool.refused(UNREACHABLE, "status", "--head", "no-such-host.invalid:7070")
    assert "no-such-host.invalid" in said and "cannot be resolved" in said


def test_what_is_no_head_is_not_taken_for_one(pool: Pool) -> None:
    pool.environment["DJINN_TOKEN"] = "0" * 32
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = pool.start("asked", "status", "--head", f"127.0.0.1:{listener.getsockname()[1]}")
        listener.settimeout(5)
        stranger, _ = listener.accept()
        with stranger:
            stranger.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            assert asked.wait() == UNREACHABLE
    assert "is what listens there a djinn head" in asked.text()


def test_a_port_in_use_is_said_with_the_way_out(pool: Pool) -> None:
    pool.start_head()
    said = pool.refused(FAILED, "start", "--head", "--listen", pool.address, "--state", str(pool.folder / "other"))
    assert pool.address in said and "in use" in said and "another port" in said
    said = pool.refused(FAILED, "start", "--worker", "--listen", pool.address)
    assert pool.address in said and "in use" in said


def test_an_address_of_another_machine_cannot_be_listened_on(pool: Pool) -> None:
    said = pool.refused(FAILED, "start", "--head", "--listen", "192.0.2.1:0")
    assert "192.0.2.1" in said and "this machine" in said


def test_two_heads_do_not_share_a_state_folder(pool: Pool) -> None:
    pool.start_head()
    said = pool.refused(FAILED, "start", "--head", "--listen", "127.0.0.1:0")
    assert str(pool.state) in said and "another head" in said and "--state" in said
    assert pool.status()["generation"] == 1


def test_a_missing_and_a_wrong_token_are_told_apart(pool: Pool) -> None:
    pool.start_head()
    elsewhere = str(pool.folder / "elsewhere")
    said = pool.refused(FAILED, "status", "--state", elsewhere)
    assert "there is no token" in said and elsewhere in said and "DJINN_TOKEN" in said
    pool.environment["DJINN_TOKEN"] = "0123456789abcdef" * 2
    said = pool.refused(FAILED, "status")
    assert "token does not match" in said and "DJINN_TOKEN" in said
    worker = pool.start("stranger", "start", "--worker", "--head", pool.address, "--threads", "1", "--memory", "256M")
    assert worker.wait() == FAILED and "token does not match" in worker.text()
    pool.environment["DJINN_TOKEN"] = "secret"
    assert "32 hexadecimal digits" in pool.refused(FAILED, "status")


def test_a_broken_token_file_is_named(pool: Pool) -> None:
    pool.state.mkdir(parents=True)
    (pool.state / "token").write_text("nonsense\n")
    said = pool.refused(FAILED, "start", "--head", "--listen", "127.0.0.1:0")
    assert str(pool.state / "token") in said and "32 hexadecimal digits" in said


def test_two_workers_of_one_name_are_refused(pool: Pool) -> None:
    pool.start_head()
    pool.start_worker("twin")
    second = pool.start(
        "second", "start", "--worker", "--head", pool.address, "--name", "twin", "--threads", "1", "--memory", "256M"
    )
    assert second.wait() == FAILED
    assert "another worker named twin" in second.text() and "--name" in second.text()
    assert pool.worker_names() == ["twin"]


def test_gpus_that_are_not_there_have_an_exit_code(pool: Pool) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has GPUs")
    for gpus in ("all", "2"):
        said = pool.refused(NO_DEVICE, "start", "--worker", "--gpus", gpus)
        assert "CUDA" in said and "--gpus" in said


def test_a_session_without_workers_is_told_how_to_start_one(pool: Pool) -> None:
    pool.start_head()
    with frames.Peer(pool.address) as peer:
        peer.say(frames.hello(pool.token(), frames.CLIENT) + frames.session_open(request=9))
        assert peer.hear().message == frames.HELLO_OK
        request, error, text = peer.hear().failed()
    assert (request, error) == (9, 63) and "djinn start --worker" in text


def test_a_plan_that_is_not_there_is_named(pool: Pool) -> None:
    pool.start_head()
    for command in (["plan", "feed"], ["srg", "show", "feed"]):
        said = pool.refused(FAILED, *command)
        assert '"feed"' in said and "djinn plan" in said


# Disks ----------------------------------------------------------------------------------------------------------------


def test_a_state_folder_that_cannot_be_made_is_named(pool: Pool) -> None:
    file = pool.folder / "file"
    file.write_text("")
    for folder in ("/proc/djinn", str(file), str(file / "below")):
        for more in ([], ["--detach"]):
            said = pool.refused(FAILED, "start", "--head", "--listen", "127.0.0.1:0", "--state", folder, *more)
            assert folder in said and "--state" in said


@pytest.fixture
def small_disk(pool: Pool) -> Iterator[Path]:
    """A disk of 1 MiB at the place of the state folder."""
    pool.state.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", pool.state], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("this user cannot mount a small disk")
    try:
        yield pool.state
    finally:
        pool.end()
        subprocess.run(["umount", "-l", pool.state], check=True)


def fill(folder: Path) -> Path:
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return path


def test_a_full_disk_stops_a_start_with_its_name(pool: Pool, small_disk: Path) -> None:
    filler = fill(small_disk)
    said = pool.refused(FAILED, "start", "--head", "--listen", "127.0.0.1:0")
    assert "No space left" in said and str(small_disk) in said
    filler.unlink()
    pool.start_head()
    assert pool.status()["generation"] >= 1


def test_a_disk_that_fills_up_leaves_a_head_that_answers(pool: Pool, small_disk: Path) -> None:
    head = pool.start_head()
    filler = fill(small_disk)
    for number in range(3):
        pool.start_worker(f"late-{number}")
    wait_until(
        lambda: "full" in head.text() or "No space" in head.text(), 5, f"the head says that the disk is full:\n{head.text()}"
    )
    assert len(pool.worker_names()) == 3
    filler.unlink()
    assert pool.run("stop").returncode == DONE


def test_a_limit_on_file_size_is_an_error_and_not_a_signal(pool: Pool) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    said = pool.refused(FAILED, "start", "--head", "--listen", "127.0.0.1:0", preexec_fn=limit)
    assert str(pool.state) in said, said
    shutil.rmtree(pool.state)
    assert not os.path.exists(pool.state)
