"""Run as a program: do something with a store in forked processes, each killed at its n-th file-system event, all n.

    python killed_store.py FOLDER SCENARIO

After each death the stage must be absent or whole, here and in the remote, and a second try must finish it. Prints the
number of deaths.
"""

import contextlib
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.planning.plan import make_plan
from flows.planning.stages import Stage
from flows.profiles import load_profile
from flows.store.manifest import damaged_files, read_manifest
from flows.store.remote_store import RemoteStore
from flows.store.store import Store

FILES = {"a.bin": b"1" * 5000, "deep/b.bin": b"2" * 70, "result.json": b"{}"}
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.scandir", "os.listdir", "os.fsync")


def main() -> None:
    folder, scenario = Path(sys.argv[1]), sys.argv[2]
    stage = make_plan(load_profile("smoke")).stages[0]
    for n in itertools.count(1):
        root = folder / str(n)
        act = prepare(root, scenario, stage)
        if not _is_killed(act, root, n):
            break
        examine(root, scenario, stage)
        shutil.rmtree(root)
    print(n - 1)


def prepare(root: Path, scenario: str, stage: Stage) -> Callable[[], Any]:
    """What is there before, and what is then done under fire."""
    store = open_at(root, scenario)
    if scenario == "fetch":
        other = Store(root / "elsewhere", RemoteStore((root / "remote").as_uri()))
        write_work(other, stage)
        other.commit(stage, {})
        store.root.mkdir()
        return lambda: store.obtain(stage)
    if scenario in ("replace", "move aside"):
        write_work(store, stage)
        (store.commit(stage, {}) / "a.bin").write_bytes(b"1" * 4999 + b"x")
        if scenario == "move aside":
            store.note = lambda _: None
            return lambda: store.obtain(stage)
    write_work(store, stage)
    return lambda: store.commit(stage, {})


def open_at(root: Path, scenario: str) -> Store:
    (root / "remote").mkdir(parents=True, exist_ok=True)
    remote = RemoteStore((root / "remote").as_uri()) if scenario in ("fetch", "upload") else None
    return Store(root / "store", remote)


def write_work(store: Store, stage: Stage) -> None:
    for name, content in FILES.items():
        path = store.work_folder(stage) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _is_killed(act: Callable[[], Any], root: Path, n: int) -> bool:
    child = os.fork()
    if child == 0:
        _die_at(root, n)
        act()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), code
    return code == 9


def _die_at(root: Path, n: int) -> None:
    count = itertools.count(1)
    fsync = os.fsync

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and (event == "os.fsync" or str(arguments[0]).startswith(str(root))) and next(count) == n:
            os._exit(9)

    def audited_fsync(descriptor: int) -> None:
        sys.audit("os.fsync", descriptor)
        fsync(descriptor)

    sys.addaudithook(hook)
    os.fsync = audited_fsync


def examine(root: Path, scenario: str, stage: Stage) -> None:
    store = open_at(root, scenario)
    assert_whole_or_absent(store, stage, may_be_damaged=scenario in ("replace", "move aside"))
    if scenario == "upload":
        assert_whole_or_absent(Store(root / "third", open_at(root, scenario).exchange.remote), stage)
    store.note = lambda _: None
    with contextlib.nullcontext() if store.exchange else store.lock(stage):
        if store.obtain(stage) is None:
            if not (store.work_folder(stage) / "result.json").exists():
                write_work(store, stage)
            store.commit(stage, {})
        elif store.exchange:
            for waiting in store.exchange.pending():
                store.exchange.upload(*waiting)
    assert_whole(store.find(stage))
    if store.exchange:
        assert_whole(Store(root / "fourth", store.exchange.remote).obtain(stage))
        assert store.exchange.pending() == []


def assert_whole_or_absent(store: Store, stage: Stage, may_be_damaged: bool = False) -> None:
    store.note = _complain
    folder = store.obtain(stage) if store.exchange else store.find(stage)
    if folder is not None and may_be_damaged and (folder / "a.bin").read_bytes().endswith(b"x"):
        return  # the one from before, which find() does not hash
    if folder is not None:
        assert_whole(folder)


def _complain(line: str) -> None:
    raise AssertionError(line)


def assert_whole(folder: Path | None) -> None:
    assert folder is not None
    manifest = read_manifest(folder)
    assert manifest is not None
    assert damaged_files(folder, manifest) == []
    assert {name: (folder / name).read_bytes() for name in manifest["files"]} == FILES


if __name__ == "__main__":
    main()
