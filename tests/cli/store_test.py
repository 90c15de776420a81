"""djinn store: check, backup and restore, beside a head that runs and without one, on stores with a session's lineage in them."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from live import DJINN, DONE, FAILED, USAGE, Pool, wait_until

HELLO = DJINN.parents[1] / "examples" / "hello"


def run_hello(pool: Pool, executions: int) -> None:
    """A session with lineage: plans, leaves, executions. It has a name, so that its records stay when it has ended."""
    if not HELLO.exists():
        pytest.skip("examples/hello was not built")
    done = subprocess.run(
        [HELLO, f"kept-{executions}"], env=pool.environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == DONE, done.stdout + done.stderr
    wait_until(lambda: pool.status()["store"]["executions"] >= executions, 5, "the execution is stored")


def pool_with_lineage(pool: Pool) -> Any:
    """A head and a worker with something stored; what the head says that it holds."""
    pool.start_head()
    pool.start_worker("one")
    run_hello(pool, 1)
    wait_until(lambda: pool.status()["store"]["leaves"], 5, "a leaf is stored")
    return pool.status()["store"]


def checked(pool: Pool, state: Path | None = None, code: int = DONE) -> Any:
    done = pool.run("store", "check", "--json", *(["--state", str(state)] if state else []))
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def held(report: Any) -> dict[str, int]:
    return {"plans": report["entries"]["plan"], "leaves": report["entries"]["leaf"], "executions": report["entries"]["execution"]}


def test_a_store_is_checked_while_its_head_runs_and_after_it(pool: Pool) -> None:
    store = pool_with_lineage(pool)
    running = checked(pool)
    assert running["damaged"] == [] and held(running) == {key: store[key] for key in ("plans", "leaves", "executions")}
    run_hello(pool, 2)
    assert held(checked(pool))["executions"] > held(running)["executions"], "a check is of the moment"
    assert pool.run("stop").returncode == DONE
    text = pool.run("store", "check")
    assert text.returncode == DONE and "execution" in text.stdout and "as they were written" in text.stdout


def test_a_damaged_value_is_named_and_the_exit_code_says_so(pool: Pool) -> None:
    pool_with_lineage(pool)
    key = bytes.fromhex(pool.answer("plan")["plans"][0]["id"])
    assert pool.run("stop").returncode == DONE
    tree = pool.state / "lineage.mdb"
    whole = bytearray(tree.read_bytes())
    # A plan's name is followed by its value: 9 bytes of form and checksum, then its bytes. Pages that are not in use any more may hold
    # it too: which of them is the one in use does not show from outside.
    behind = len(key) + 9 + random.Random(5).randrange(40)
    places = [found.start() + behind for found in re.finditer(re.escape(key), whole)]
    assert places
    for place in places:
        whole[place] ^= 4
    tree.write_bytes(whole)
    report = checked(pool, code=FAILED)
    assert [item["table"] for item in report["damaged"]] == ["plan"]
    assert bytes.fromhex(report["damaged"][0]["key"]) == key
    done = pool.run("store", "check")
    assert done.returncode == FAILED and "damaged: plan " in done.stdout and "1 values" in done.stderr
    # A backup of it says the same, and holds the rest.
    copy = pool.folder / "copy"
    assert "damaged" in pool.refused(FAILED, "store", "backup", str(copy))
    assert len(checked(pool, copy, FAILED)["damaged"]) == 1


def test_a_backup_beside_a_running_head_is_restored_and_served(pool: Pool) -> None:
    store = pool_with_lineage(pool)
    backup, state = pool.folder / "backup", pool.folder / "again" / "djinn"
    done = pool.run("store", "backup", str(backup))
    assert done.returncode == DONE, done.stderr
    assert not backup.with_suffix(".part").exists()
    before = held(checked(pool, backup))
    assert before == {key: store[key] for key in ("plans", "leaves", "executions")}
    assert (backup / "token").read_text() == (pool.state / "token").read_text()
    run_hello(pool, store["executions"] + 1)
    assert held(checked(pool, backup)) == before, "the copy is of its moment"
    generation = pool.status()["generation"]
    assert pool.run("stop").returncode == DONE

    state.parent.mkdir()
    done = pool.run("store", "restore", str(backup), "--state", str(state))
    assert done.returncode == DONE, done.stderr
    assert pool.run("store", "check", "--state", str(state)).returncode == DONE
    head = pool.start("restored", "start", "--head", "--listen", "127.0.0.1:0", "--state", str(state))
    pool.environment["DJINN_ADDRESS"] = pool.address = head.ready()
    status = pool.status()
    assert status["generation"] == generation + 1
    assert {key: status["store"][key] for key in before} == before
    pool.start_worker("two")
    run_hello(pool, store["executions"] + 1)


def test_a_restore_refuses_a_running_head_and_a_folder_with_something_in_it(pool: Pool) -> None:
    pool_with_lineage(pool)
    backup = pool.folder / "backup"
    assert pool.run("store", "backup", str(backup)).returncode == DONE
    assert "a head runs" in pool.refused(FAILED, "store", "restore", str(backup))
    assert pool.run("stop").returncode == DONE
    tree = (pool.state / "lineage.mdb").read_bytes()
    assert "not empty" in pool.refused(FAILED, "store", "restore", str(backup))
    assert (pool.state / "lineage.mdb").read_bytes() == tree
    empty = pool.folder / "empty"
    empty.mkdir()
    assert pool.run("store", "restore", str(backup), "--state", str(empty)).returncode == DONE
    assert checked(pool, empty)["damaged"] == []


def test_what_is_not_there_or_is_no_store_is_said(pool: Pool) -> None:
    pool.folder.joinpath("nothing").mkdir()
    assert "there is no store" in pool.refused(FAILED, "store", "check", "--state", str(pool.folder / "nothing"))
    assert "there is no store" in pool.refused(FAILED, "store", "restore", str(pool.folder / "nothing"))
    noise = pool.folder / "noise"
    noise.mkdir()
    (noise / "lineage.mdb").write_bytes(random.Random(1).randbytes(1 << 16))
    assert "cannot read" in pool.refused(FAILED, "store", "check", "--state", str(noise))
    pool.start_head()
    there = pool.folder / "there"
    there.mkdir()
    assert "is there already" in pool.refused(FAILED, "store", "backup", str(there))
    pool.refused(USAGE, "store")
    pool.refused(USAGE, "store", "chekc")
    pool.refused(USAGE, "store", "backup")
    pool.refused(USAGE, "store", "check", "--jsn")


def test_a_tree_that_was_cut_off_ends_in_a_message(pool: Pool) -> None:
    pool_with_lineage(pool)
    assert pool.run("stop").returncode == DONE
    tree = pool.state / "lineage.mdb"
    for pages in (3, 5, 8):
        os.truncate(tree, pages * 4096)
        done = pool.run("store", "check")
        assert done.returncode == FAILED and done.stderr.startswith("djinn: "), (pages, done)


def test_a_backup_onto_a_full_disk_leaves_nothing(pool: Pool) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    pool_with_lineage(pool)
    small = pool.folder / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k", "none", small], capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        said = pool.refused(FAILED, "store", "backup", str(small / "backup"))
        assert "No space left" in said
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=False)
        shutil.rmtree(small)
