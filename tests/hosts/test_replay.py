"""The replay host: gives back what was recorded of the same machine, and says of every other file
why it cannot.
"""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kvmscen.errors import HostError
from kvmscen.hosts import host, recordings
from kvmscen.hosts import replay as replay_module
from kvmscen.hosts.recordings import recording
from kvmscen.hosts.replay import NotRecorded, ReplayHost
from kvmscen.sent.facts import Facts
from kvmscen.sent.machine import Bytes, Machine, Memslot, Step, Vcpu
from kvmscen.sent.observation import Event, Observation

FACTS = Facts(
    "x86_64", "6.18.0", {"KVM_CAP_USER_MEMORY": 1}, 4096, "pvm", ("fpu",), "3.11.2", "kvm"
)
MMIO = {"phys_addr": 0x5000, "is_write": True, "len": 8, "data": 0}
EVENTS = (
    Event(0, "exit", "mmio", MMIO, 4, {"rax": 1}, {0: b"x"}, times=3),
    Event(0, "exit", "hlt", {}, 5, at=((0, 0),)),
)
SEEN = Observation("expected", EVENTS, {"rax": 1}, {0x5000: b"abc"}, 0.5)


def machine(code: bytes = b"\xf4") -> Machine:
    vcpu = Vcpu(0, "long", {"rip": 0}, (), (Step("hlt"),))
    return Machine("x86_64", (Memslot(0, 0, 0x1000),), (Bytes.at(0, code),), (), (vcpu,))


def text(name: str = "a:default", made: Machine | None = None, facts: Facts = FACTS) -> str:
    return recording(name, "kvm", facts, (made or machine()).digest(), SEEN)


def started(path: Path) -> ReplayHost:
    made = host(f"replay:{path}")
    assert isinstance(made, ReplayHost)
    made.start()
    made.wait()
    return made


def test_what_was_recorded_comes_back(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(text())
    for path in (tmp_path, tmp_path / "one.json"):
        replay = started(path)
        assert (replay.facts, replay.name) == ((FACTS,), f"replay:{path}")
        assert replay.executor().execute(machine().seal("a:default")) == SEEN


def test_another_case_or_another_version_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(text())
    replay = started(tmp_path)
    # Not a NotRecorded, which is a SKIP: the host was asked for, and what it has is stale.
    with pytest.raises(
        HostError, match="this case was recorded from another version of it: record it again"
    ):
        replay.execute(machine(b"\x90").seal("a:default"))
    with pytest.raises(NotRecorded, match="this case was not recorded"):
        replay.execute(machine().seal("b:default"))


def test_two_cases_of_the_same_machine_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.json").write_text(text())
    (tmp_path / "sub" / "two.json").write_text(
        text("b:default", facts=Facts("arm64", None, {}, kind="model", predicted=True))
    )
    (tmp_path / "notes.txt").write_text("not a recording")
    replay = started(tmp_path)
    assert replay.execute(machine().seal("b:default")) == SEEN
    assert {facts.arch for facts in replay.facts} == {"x86_64", "arm64"}
    assert {facts.predicted for facts in replay.facts} == {True, False}


GOOD: dict[str, Any] = json.loads(text())


def changed(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


WRONG = {
    "empty": "",
    "text": "hello",
    "cut": text()[:-40],
    "list": "[]",
    "null": "null",
    "number": "3",
    "deep": "[" * 100_000,
    "deeper map": '{"a":' * 100_000,
    "another format": changed(format="kvmscen-report"),
    "another version": changed(version=99),
    "no format": json.dumps({k: v for k, v in GOOD.items() if k != "format"}),
    "no observation": json.dumps({k: v for k, v in GOOD.items() if k != "observation"}),
    "no machine": json.dumps({k: v for k, v in GOOD.items() if k != "machine"}),
    "name is a list": changed(name=["a"]),
    "machine is a map": changed(machine={}),
    "arch is a list": changed(facts={**GOOD["facts"], "arch": []}),
    "facts are null": changed(facts=None),
    "capabilities are a list": changed(
        facts={**GOOD["facts"], "capabilities": ["KVM_CAP_USER_MEMORY"]}
    ),
    "kernel is a number": changed(facts={**GOOD["facts"], "kernel": 6.1}),
    "predicted is text": changed(facts={**GOOD["facts"], "predicted": "no"}),
    "observation is text": changed(observation="x"),
    "events are a number": changed(observation={**GOOD["observation"], "events": 3}),
    "an event is a number": changed(observation={**GOOD["observation"], "events": [3]}),
    "memory is no hex": changed(observation={**GOOD["observation"], "memory": {"0": "xyz"}}),
    "memory is nowhere": changed(observation={**GOOD["observation"], "memory": {"here": "00"}}),
    "memory is a list": changed(observation={**GOOD["observation"], "memory": [1]}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_damaged_recording(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "one.json").write_text(WRONG[wrong])
    with pytest.raises(
        HostError,
        match=r"one\.json is not a recording (made by kvmscen run --record|that this kvmscen "
        r"reads)",
    ):
        started(tmp_path / "one.json")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_bytes(b"\xff\xfe\0" * 100)
    with pytest.raises(HostError, match="is not a recording"):
        started(tmp_path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"gone\.json cannot be read: No such file or directory"):
        started(tmp_path / "gone.json")
    with pytest.raises(HostError, match="there are no recordings in"):
        started(tmp_path)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(HostError, match=r"folder\.json cannot be read: Is a directory"):
        started(tmp_path)


def test_replay_wants_a_file() -> None:
    with pytest.raises(HostError, match="replay needs a recording"):
        host("replay:")


def nodes(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    return [path, *(found for key, value in inner for found in nodes(value, (*path, key)))]


def test_any_part_replaced_is_a_host_error_or_still_read(tmp_path: Path) -> None:
    choose, file = random.Random(7), tmp_path / "one.json"
    for path in nodes(GOOD)[1:]:
        for value in (None, 3, -1, 1.5, "x", [], {}, [None], {"x": None}, True):
            data = json.loads(json.dumps(GOOD))
            at = data
            for key in path[:-1]:
                at = at[key]
            if choose.random() < 0.1:
                del at[path[-1]]
            else:
                at[path[-1]] = value
            file.write_text(json.dumps(data))
            with suppress(HostError):
                started(file).execute(machine().seal("a:default"))


# --- folders and names ----------------------------------------------------------------------------


def test_one_damaged_recording_is_told_and_the_others_replay(tmp_path: Path) -> None:
    for name in ("a:default", "b:default"):
        recordings.keep(tmp_path, name, "kvm", FACTS, machine().digest(), SEEN)
    damaged = tmp_path / recordings.file_name("a:default", "kvm", machine().digest())
    damaged.write_text(damaged.read_text()[:-40])
    (tmp_path / "pipe.json").mkdir()
    replay = started(tmp_path)
    assert {Path(problem.file).name for problem in replay.problems} == {damaged.name, "pipe.json"}
    assert all(problem.ours for problem in replay.problems)
    assert replay.execute(machine().seal("b:default")) == SEEN
    # It is an ERROR, not a SKIP.
    with pytest.raises(
        HostError, match="may be the recording of this case, is damaged: record it again"
    ) as told:
        replay.execute(machine().seal("a:default"))
    assert not isinstance(told.value, NotRecorded)


def test_a_damaged_recording_of_no_name_may_be_of_any_case(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(text())
    (tmp_path / "two.json").write_text("{")
    replay = started(tmp_path)
    with pytest.raises(HostError, match="is damaged") as told:
        replay.execute(machine().seal("b:default"))
    assert not isinstance(told.value, NotRecorded)


def test_names_of_files_are_short_and_of_one_case_each() -> None:
    digest = machine().digest()
    names = [
        "a-b:c",
        "a:b-c",
        "a+b:c",
        "a_b:c",
        "x:" + "c" * 300,
        "x:" + "c" * 299 + "d",
        "\udc80:c",
    ]
    names += ["ö" * 200 + ":c", "ö" * 201 + ":c"]
    hosts = ("kvm", "qemu:arm64@6.1", "h" * 300)
    files = [recordings.file_name(name, where, digest) for name in names for where in hosts]
    assert len(set(files)) == len(files)
    for file in files:
        assert len(file.encode()) <= 255
        assert "/" not in file


def test_a_file_of_an_earlier_name_is_found_and_replaced(tmp_path: Path) -> None:
    old = tmp_path / f"a-b-kvm-{machine().digest()[7:15]}.json"
    old.write_text(text("a:b"))
    assert started(tmp_path).execute(machine().seal("a:b")) == SEEN
    # Another case, which would have had the same name.
    recordings.keep(tmp_path, "a-b:kvm", "", FACTS, machine().digest(), SEEN)
    assert old.exists()
    recordings.keep(tmp_path, "a:b", "kvm", FACTS, machine().digest(), SEEN)
    assert not old.exists()
    assert started(tmp_path).execute(machine().seal("a:b")) == SEEN


def test_the_newer_of_two_recordings_counts(tmp_path: Path) -> None:
    for name, at, elapsed in (("a", 1000, 1.0), ("b", 3000, 2.0), ("c", 2000, 3.0)):
        (tmp_path / f"{name}.json").write_text(
            recording("a:b", "kvm", FACTS, machine().digest(), SEEN._replace(elapsed=elapsed))
        )
        os.utime(tmp_path / f"{name}.json", (at, at))
    assert started(tmp_path).execute(machine().seal("a:b")).elapsed == 2.0


def test_recordings_that_are_too_many_to_hold_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "_HELD", 0)
    (tmp_path / "one.json").write_text(text())
    assert started(tmp_path).execute(machine().seal("a:default")) == SEEN


def counted(count: object, times: int = 1) -> str:
    event = {**GOOD["observation"]["events"][0], "count_of_equal": count}
    return changed(observation={**GOOD["observation"], "events": [event] * times})


TOO_MUCH = {
    "a count": counted(10**12),
    "a count in sum": counted(200_000, 2),
    "a count of nothing": counted(0),
    "a count that is no number": counted(True),
    "a number": text().replace('"vcpu": 0', '"vcpu": ' + "9" * 100_000),
    "containers": '{"a": [' + "{}," * 2_000_001 + "{}]}",
    "values": '{"a": [' + "1," * 10_000_001 + "1]}",
    "nesting": "[" * 1_500_000,
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_what_no_run_can_have_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "one.json").write_text(TOO_MUCH[what])
    with pytest.raises(HostError, match="is not a recording made by kvmscen"):
        started(tmp_path / "one.json")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "one.json").open("wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(HostError, match="cannot be read: it has more than"):
        started(tmp_path / "one.json")


# --- what contradicts itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "regs",
    [
        {"rax": 2, "al": 1},
        {"rax": 0x0200, "ah": 2, "ax": 0x300},
        {"eax": 1, "ax": 2},
        {"al": 0x100},
        {"rax": 1 << 64},
        {"rax": -1},
    ],
)
def test_one_register_with_two_values_is_refused(tmp_path: Path, regs: dict[str, int]) -> None:
    """What is compared as `al` must be what is told of rax."""
    steps = (Step("mmio", {"phys_addr": 0x5000}, (3, 3)), Step("hlt"))
    plan = machine()
    plan = plan._replace(vcpus=(plan.vcpus[0]._replace(script=steps),))
    sealed = plan.seal("a:default")
    for place in ("end", "exit"):
        seen = SEEN._replace(regs=regs) if place == "end" else SEEN
        if place == "exit":
            seen = SEEN._replace(events=(EVENTS[0]._replace(regs=regs), EVENTS[1]))
        (tmp_path / "one.json").write_text(
            recording("a:default", "kvm", FACTS, sealed.digest, seen)
        )
        with pytest.raises(HostError, match="tells of one register two values: record it again"):
            started(tmp_path).execute(sealed)
    agreed = SEEN._replace(regs={"rax": 0x1_0000_0201, "eax": 0x201, "ah": 2, "al": 1, "pc": 5})
    (tmp_path / "one.json").write_text(recording("a:default", "kvm", FACTS, sealed.digest, agreed))
    started(tmp_path).execute(sealed)


WRITE = {"direction": 1, "size": 2, "port": 1, "count": 1, "data": 7}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mmio", {**MMIO, "is_write": 5}),
        ("mmio", {**MMIO, "is_write": False}),
        ("mmio", {key: value for key, value in MMIO.items() if key != "data"}),
        ("mmio", {**MMIO, "len": True}),
        ("mmio", {**MMIO, "len": 1, "data": 0x100}),
        ("mmio", {**MMIO, "data": -1}),
        ("mmio", {**MMIO, "data": [0, 0]}),
        ("io", {**WRITE, "direction": 2}),
        ("io", {**WRITE, "direction": 0}),
        ("io", {**WRITE, "count": 0}),
        ("io", {**WRITE, "count": 2}),
        ("io", {**WRITE, "count": 2, "data": [1]}),
        ("io", {**WRITE, "count": 2, "data": [1, 0x10000]}),
    ],
)
def test_an_access_that_contradicts_itself_is_no_recording(
    tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    right = (Event(0, "exit", "io", WRITE, 4), Event(0, "exit", "mmio", MMIO, 4))
    for events, taken in ((right, True), ((Event(0, "exit", name, fields, 4),), False)):
        seen = SEEN._replace(events=events)
        (tmp_path / "one.json").write_text(
            recording("a:default", "kvm", FACTS, machine().digest(), seen)
        )
        if taken:
            started(tmp_path / "one.json")
            continue
        with pytest.raises(HostError, match="is not a recording made by kvmscen run --record"):
            started(tmp_path / "one.json")
