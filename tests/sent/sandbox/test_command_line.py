"""--sandbox and --allow-host-effects as users meet them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvmscen.errors import HostError
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.header.caps import CAPABILITIES, ON_VCPU
from kvmscen.sent.header.reach import BEYOND, REACH, beyond
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.machine import Capability, Machine, Memslot, Vcpu
from kvmscen.sent.sandbox import policies

ROOT = Path(__file__).resolve().parents[3]
SCENARIO = str(ROOT / "scenarios" / "x86_64-mmio.yaml")
NX = str(ROOT / "tests" / "cases" / "security" / "cap-nx.yaml")
HERE = policies.means()
whole = pytest.mark.skipif(bool(HERE.lacking), reason="this kernel lacks means itself")


def kvmscen(*arguments: str, without: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    before = [sys.executable, str(Path(__file__).parent / "without.py"), without] if without else []
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("KVMSCEN_")
    }
    command = [*before, sys.executable, "-m", "kvmscen", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**environment, **more}
    )


@whole
@pytest.mark.parametrize("without", ["landlock", "seccomp", "landlock,seccomp"])
def test_what_the_kernel_lacks_is_said_once_and_the_run_goes_on(without: str) -> None:
    done = kvmscen(
        "run",
        SCENARIO,
        SCENARIO.replace("mmio", "modes"),
        "--on",
        "model",
        "-j",
        "2",
        without=without,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, *rest = done.stderr.splitlines()
    assert first.startswith("kvmscen: this kernel has no ")
    assert ("Landlock" in first, "seccomp" in first) == (
        "landlock" in without,
        "seccomp" in without,
    )
    assert [line for line in rest if "this kernel" in line] == []


@whole
@pytest.mark.parametrize("verb", ["run", "check", "show", "measure"])
def test_require_refuses_such_a_kernel(verb: str) -> None:
    done = kvmscen(verb, SCENARIO, "--sandbox", "require", without="landlock")
    assert done.returncode == 3
    assert done.stderr.startswith(
        "kvmscen: --sandbox require: this kernel has no Landlock (Linux 5.13 has it"
    )
    assert "Traceback" not in done.stderr


@whole
def test_require_runs_where_all_is_there() -> None:
    done = kvmscen("run", SCENARIO, "--on", "model", KVMSCEN_SANDBOX="require")
    assert (done.returncode, done.stderr) == (0, "")


def test_off_says_nothing() -> None:
    done = kvmscen("run", SCENARIO, "--on", "model", "--sandbox", "off", without="landlock")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_value_that_is_none() -> None:
    done = kvmscen("run", SCENARIO, KVMSCEN_SANDBOX="maybe")
    assert done.returncode == 2
    assert (
        done.stderr
        == "kvmscen: KVMSCEN_SANDBOX: 'maybe' is none of its values: write auto, require, off\n"
    )


@whole
def test_hosts_says_what_is_in_force() -> None:
    found = (
        f"sandbox: what reads scenario files is confined by Landlock (ABI {HERE.landlock}) "
        f"and seccomp"
    )
    assert kvmscen("hosts").stdout.splitlines()[-1] == found
    assert (
        kvmscen("hosts", KVMSCEN_SANDBOX="off").stdout.splitlines()[-1].startswith("sandbox: off")
    )
    assert "this kernel has no Landlock" in kvmscen("hosts", without="landlock").stdout


# --- capabilities that reach beyond the VM --------------------------------------------------------


def test_the_column_is_of_the_table() -> None:
    assert set(CAPABILITIES) >= set(REACH)
    assert set(REACH) >= ON_VCPU
    assert set(BEYOND) == {name for name, reach in REACH.items() if reach}
    assert beyond(CAPABILITIES["KVM_CAP_SPLIT_IRQCHIP"]) == ""
    assert beyond(CAPABILITIES["KVM_CAP_SGX_ATTRIBUTE"]).startswith(
        "KVM_CAP_SGX_ATTRIBUTE gives the guest"
    )
    assert "newer than this kvmscen" in beyond(9999)


def test_the_documentation_has_each() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    table = text.partition("<!-- the reach -->\n")[2].partition("<!-- the end of the reach -->")[0]
    assert table.splitlines()[2:] == [f"| `{name}` | {reach} |" for name, reach in BEYOND.items()]


@pytest.mark.kvm
@pytest.mark.parametrize(
    "where",
    [
        "enable: [KVM_CAP_VM_DISABLE_NX_HUGE_PAGES]\nexpect: [hlt]\n",
        "setup: [{enable: KVM_CAP_VM_DISABLE_NX_HUGE_PAGES}]\nexpect: [hlt]\n",
        "expect:\n  - {io: {}, then: [{enable: KVM_CAP_VM_DISABLE_NX_HUGE_PAGES}]}\n  - hlt\n",
        "expect:\n  - repeat: {min: 1, max: 2}\n    steps: [{io: {}, then: [{enable: "
        "KVM_CAP_X86_DISABLE_EXITS}]}]\n  - hlt\n",
        "expect: [{io: {}}, hlt]\nwhen:\n  - kernel: {before: '1.0'}\n    expect:\n"
        "      - {io: {}, then: [{enable: KVM_CAP_SGX_ATTRIBUTE}]}\n      - hlt\n",
    ],
)
def test_it_is_seen_wherever_it_stands(where: str, tmp_path: Path) -> None:
    head = (
        "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}]\nasm: |\n  out 0x10, al\n  hlt\n"
    )
    (tmp_path / "x.yaml").write_text(head + where)
    done = kvmscen("run", str(tmp_path / "x.yaml"), "--on", "kvm")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "--allow-host-effects lets it run" in " ".join(done.stdout.split())
    assert "SKIP  x on kvm" in done.stdout


@pytest.mark.kvm
def test_it_runs_where_it_is_allowed() -> None:
    refused = kvmscen("run", NX, "--on", "kvm")
    assert refused.returncode == 4
    assert (
        "line 3: KVM_CAP_VM_DISABLE_NX_HUGE_PAGES takes a protection from the host"
        in refused.stdout
    )
    if os.geteuid() == 0:  # KVM wants CAP_SYS_BOOT for it
        assert kvmscen("run", NX, "--on", "kvm", "--allow-host-effects").returncode == 0
        assert kvmscen("run", NX, "--on", "kvm", KVMSCEN_ALLOW_HOST_EFFECTS="1").returncode == 0
    assert kvmscen("run", NX, "--on", "kvm", KVMSCEN_ALLOW_HOST_EFFECTS="no").returncode == 4


@pytest.mark.kvm
def test_the_agent_does_not_take_it_from_whoever_asks() -> None:
    name = "KVM_CAP_VM_DISABLE_NX_HUGE_PAGES"
    machine = Machine(
        "x86_64",
        (Memslot(0, 0, 0x1000),),
        (),
        (),
        (Vcpu(0, "real", {}),),
        # The number counts, whatever it is called.
        enable=(Capability("KVM_CAP_HALT_POLL", CAPABILITIES[name]),),
    )
    with pytest.raises(HostError, match=f"{name} takes a protection from the host"):
        Executor(Kvm(), None).execute(machine)
