"""`kvmscen measure` from a file to its figures, on the real /dev/kvm; and what it says of guests
that do not give them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
arch: x86_64
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
sections: {.text: 0, .data: 0x5000}
"""
ROUND = (
    HEAD
    + """\
asm: |
  _start:
      mov  [counter], rax
      mov  rbx, [counter]
      out  0x10, al
      in   al, 0x11
      inc  rax
      jmp  _start
  .data
  counter: .quad 0
"""
)


def kvmscen(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("KVMSCEN_")
    } | more
    command = [sys.executable, "-m", "kvmscen", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600
    )


def measured(
    tmp_path: Path, text: str, *arguments: str, status: int = 0
) -> tuple[dict[str, Any], str]:
    """The result in the JSON report, and what was printed."""
    file = tmp_path / "cost.yaml"
    file.write_text(text)
    report = tmp_path / "report.json"
    done = kvmscen("measure", str(file), "--on", "kvm", "--report", f"json={report}", *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    made = json.loads(report.read_text())
    jsonschema.validate(made, json.loads((ROOT / "schema" / "report.schema.json").read_text()))
    (result,) = made["results"]
    return result, done.stdout


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.kvm
@pytest.mark.parametrize("loop", ["native", "python"])
def test_figures(loop: str, tmp_path: Path) -> None:
    text = (
        ROUND
        + """\
measure:
  store: {mmio: {phys_addr: counter, is_write: true}, samples: 300, warmup: 10}
  load: {mmio: {phys_addr: counter, is_write: false}, samples: 200}
  pio: {io: {port: 0x10}, samples: 100}
  reply: {io: {port: 0x11}, samples: 100, reply: 3}
  span: {from: {io: {port: 0x10}}, to: {mmio: {is_write: true}}, per: 2, samples: 100}
"""
    )
    result, shown = measured(tmp_path, text, "--rounds", "2", "--loop", loop, "--compare")
    assert result["status"] == "PASS"
    kinds = {kind["name"]: kind for kind in result["measured"]}
    assert {name: kind["count"] for name, kind in kinds.items()} == {
        "store": 300,
        "load": 200,
        "pio": 100,
        "reply": 100,
        "span": 100,
    }
    for kind in kinds.values():
        assert kind["loop"] == loop
        for unit in ("ns", "ticks"):
            figures = kind[unit]
            assert 0 < figures["min"] <= figures["median"] <= figures["p95"] <= figures["p99"]
            assert figures["mad"] <= figures["p99"]
        assert kind["ns"]["median"] == pytest.approx(
            kind["ticks"]["median"] * 1e9 / kind["hz"], rel=1e-4
        )
        assert 0 < kind["overhead_ns"] < kind["ns"]["median"]
        assert 0 <= kind["user_share"] < 1
        assert len(kind["rounds_ns"]) == 2
    # An exit takes part of the span, and half a span is more than nothing of it.
    assert 2 * kinds["span"]["ns"]["min"] > kinds["store"]["ns"]["min"]
    assert f"{loop} loop" in shown
    assert "times " in shown


@pytest.mark.kvm
def test_sections_hold_their_bytes_while_the_loop_runs(tmp_path: Path) -> None:
    # The guest goes on only where it reads what it wrote, and what was there before.
    text = (
        HEAD
        + """\
asm: |
  _start:
      mov  rax, [counter]
      cmp  rax, 5
      jne  bad
  again:
      inc  rcx
      mov  [counter + 8], ecx
      mov  eax, [counter + 8]
      cmp  eax, ecx
      jne  bad
      mov  rax, [away]
      test rax, rax
      jnz  bad
      jmp  again
  bad: hlt
  .set away, 0x7000
  .data
  counter: .quad 5, 0
measure:
  store: {mmio: {phys_addr: counter + 8, is_write: true}, samples: 500}
  load: {mmio: {phys_addr: counter + 8, is_write: false}, samples: 500}
  any: {mmio: {}, samples: 1500}
"""
    )
    result, _ = measured(tmp_path, text, "--rounds", "1")
    assert [kind["count"] for kind in result["measured"]] == [500, 500, 1500]


@pytest.mark.kvm
def test_less_and_per(tmp_path: Path) -> None:
    text = (
        HEAD
        + """\
asm: |
  _start:
      out  0x10, al
      out  0x11, al
      jmp  _start
  .data
  .quad 0
measure:
  exit: {io: {port: 0x11}, samples: 200}
  whole: {from: {io: {port: 0x10}}, to: {io: {port: 0x11}}, samples: 200}
  rest: {from: {io: {port: 0x10}}, to: {io: {port: 0x11}}, less: exit, per: 10, samples: 200}
"""
    )
    result, _ = measured(tmp_path, text, "--rounds", "1")
    exit_, whole, rest = (kind["ticks"]["median"] for kind in result["measured"])
    # The span is the exit alone, so nothing is left of it.
    assert whole == exit_
    assert rest == 0


@pytest.mark.kvm
def test_an_exit_that_ends_a_vcpu_can_be_timed(tmp_path: Path) -> None:
    text = (
        HEAD
        + "asm: |\n  _start: hlt\n      jmp _start\n  .data\n  .quad 0\nmeasure: {hlt: {hlt: {}, "
        "samples: 100}}\n"
    )
    result, _ = measured(tmp_path, text, "--rounds", "1")
    assert result["measured"][0]["count"] == 100


# --- what does not come ---------------------------------------------------------------------------


@pytest.mark.kvm
def test_a_span_of_which_one_end_never_comes(tmp_path: Path) -> None:
    spans = "measure:\n  a: {from: {io: {port: 0x10}}, to: {io: {port: 0x12}}, samples: 100}\n"
    result, _ = measured(tmp_path, ROUND + spans + "limits: {timeout: 0.5}\n", status=1)
    (mismatch,) = result["mismatches"]
    assert re.match(
        r"`from` came [\d,]+ times, `to` never came in [\d,]+ exits: ", mismatch["observed"]
    )


@pytest.mark.kvm
def test_an_exit_that_never_comes(tmp_path: Path) -> None:
    text = ROUND + "measure:\n  other: {io: {port: 0x12}, samples: 100}\nlimits: {timeout: 0.5}\n"
    _, shown = measured(tmp_path, text, status=1)
    assert "cost.yaml:15: " in shown
    assert "measure other: io: {port: 0x12} 110 times" in shown
    assert "it came never in " in shown


@pytest.mark.kvm
def test_a_guest_that_never_exits(tmp_path: Path) -> None:
    text = (
        HEAD
        + "asm: |\n  _start: jmp _start\n  .data\n  .quad 0\nmeasure: {a: {mmio: {}}}\nlimits: "
        "{timeout: 0.5}\n"
    )
    _, shown = measured(tmp_path, text, status=1)
    assert "it came never in " in shown


@pytest.mark.kvm
def test_a_guest_that_ends_early(tmp_path: Path) -> None:
    text = (
        HEAD
        + """\
asm: |
  _start:
      mov  ecx, 20
  1:  out  0x10, al
      dec  ecx
      jnz  1b
      hlt
  .data
  .quad 0
measure:
  pio: {io: {port: 0x10}, samples: 1000}
"""
    )
    result, shown = measured(tmp_path, text, status=1)
    assert "cost.yaml:14: " in shown
    assert (
        "it came 20 times in 21 exits: the guest ended with hlt; let it go round for ever" in shown
    )
    assert result["mismatches"][0]["line"] == 14
    assert "kvmscen measure " in shown


@pytest.mark.kvm
def test_a_kvm_run_that_fails(tmp_path: Path) -> None:
    # A VM without memory: PVM fails with ENOSPC, others exit with an internal error.
    text = "arch: x86_64\nmode: real\nasm: hlt\nregs: {pc: 0x1000}\nmeasure: {a: {mmio: {}}}\n"
    _, shown = measured(tmp_path, text, status=1)
    assert "it came never" in shown
    assert "error: {ioctl: KVM_RUN, errno: " in shown or "internal_error" in shown


@pytest.mark.kvm
def test_a_vm_that_cannot_be_built(tmp_path: Path) -> None:
    text = (
        ROUND
        + "measure: {a: {mmio: {}}}\nsetup: [{set_memslot: {slot: 1, gpa: 0, size: 0x1000}}]\n"
    )
    _, shown = measured(tmp_path, text, status=1)
    assert "nothing was timed: error: {ioctl: KVM_SET_USER_MEMORY_REGION, errno: EEXIST}" in shown


# --- reports and baselines ------------------------------------------------------------------------

ONE = ROUND + "measure: {store: {mmio: {phys_addr: counter, is_write: true}, samples: 500}}\n"


@pytest.mark.kvm
def test_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "a.yaml").write_text(ONE)
    done = kvmscen("measure", str(tmp_path / "a.yaml"), "--report", f"svg={tmp_path / 'a.svg'}")
    assert done.returncode == 0, done.stderr
    assert "1 is store, " in (tmp_path / "a.svg").read_text()


@pytest.mark.kvm
def test_a_report_to_standard_output_owns_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ONE)
    done = kvmscen("measure", str(tmp_path / "a.yaml"), "--report", "json", KVMSCEN_ROUNDS="2")
    (result,) = json.loads(done.stdout)["results"]
    assert len(result["measured"][0]["rounds_ns"]) == 2
    assert "native loop, 2 rounds" in done.stderr


@pytest.mark.kvm
@pytest.mark.parametrize("factor", [0.1, 10])
def test_a_change_is_a_mismatch(factor: float, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ONE)
    state = {"XDG_STATE_HOME": str(tmp_path)}
    done = kvmscen("measure", str(tmp_path / "a.yaml"), "--save", "base", **state)
    assert done.returncode == 0
    kept = tmp_path / "kvmscen" / "baselines" / "base.json"
    assert f"kept as {kept}" in done.stdout
    data = json.loads(kept.read_text())
    (kind,) = data["kinds"]
    kind["medians_ns"] = [median * factor for median in kind["medians_ns"]]
    kept.write_text(json.dumps(data))
    report = tmp_path / "r.json"
    done = kvmscen(
        "measure",
        str(tmp_path / "a.yaml"),
        "--against",
        "base",
        "--report",
        f"json={report}",
        **state,
    )
    assert done.returncode == 1
    assert done.stdout.count("measuring again, to see whether it stays so") == 2
    assert "a.yaml:14: expected measure store: " in done.stdout
    (result,) = json.loads(report.read_text())["results"]
    assert result["status"] == "FAIL"
    assert result["measured"][0]["count"] == 500
    assert "within 10% (baseline base)" in result["mismatches"][0]["expected"]


@pytest.mark.kvm
def test_that_nothing_has_changed_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ONE)
    state = {"XDG_STATE_HOME": str(tmp_path)}
    assert kvmscen("measure", str(tmp_path / "a.yaml"), "--save", "base", **state).returncode == 0
    kept = tmp_path / "kvmscen" / "baselines" / "base.json"
    data = json.loads(kept.read_text())
    # Rounds so wide that nothing can be told from them, on whatever machine.
    for kind in data["kinds"]:
        kind["medians_ns"] = [median * (1 + n % 10) for n, median in enumerate(kind["medians_ns"])]
    kept.write_text(json.dumps(data))
    done = kvmscen("measure", str(tmp_path / "a.yaml"), "--against", "base", **state)
    assert done.returncode == 0, done.stdout
    assert (
        "no change beyond the noise: 1 kind compared with the baseline base; the smallest "
        "slow-down that " in done.stdout
    )
    # It stands last, behind the figures.
    assert done.stdout.rstrip().rpartition("\n")[2].startswith("no change")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--against nothing", "there is no baseline nothing: keep one first with --save nothing"),
        ("--save ../x", "'../x' is no name of a baseline"),
        ("--save x --rounds 4", "4 rounds are too few for a baseline: write --rounds 5 or more"),
        ("--rounds 0", "'0' is not a number from 1 to 1024"),
        ("--loop slow", "invalid choice: 'slow'"),
        ("--report pdf", "there is no report 'pdf'; reports are text, json, junit, ktap, svg"),
        ("--report json --report text", "only one report can go to a file, and to standard output"),
    ],
)
def test_what_cannot_be_asked(arguments: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ONE)
    done = kvmscen(
        "measure", str(tmp_path / "a.yaml"), *arguments.split(), XDG_STATE_HOME=str(tmp_path)
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.kvm
def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ONE)
    done = kvmscen("measure", str(tmp_path / "a.yaml"), "--base", "load")
    assert done.returncode == 2
    assert "--base load: nothing of that name was timed on kvm; there are store" in done.stderr
    # What was timed for it is not lost.
    report = tmp_path / "r.json"
    (tmp_path / "b.yaml").write_text(ONE)
    files = (str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    done = kvmscen("measure", *files, "--base", "store", "--report", f"json={report}")
    assert done.returncode == 2
    assert "--base store: several are called so on kvm; there are a:store, b:store" in done.stderr
    assert len(json.loads(report.read_text())["results"]) == 2
    assert kvmscen("measure", *files, "--base", "b:store").returncode == 0


# --- hosts and files ------------------------------------------------------------------------------


def test_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ROUND + "measure: {a: {mmio: {}}}\n")
    done = kvmscen("measure", str(tmp_path / "a.yaml"), "--on", "model")
    assert done.returncode == 4
    assert "the model predicts exits, not what they cost" in done.stdout


def test_run_does_not_measure(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ROUND + "measure: {a: {mmio: {}}}\n")
    done = kvmscen("run", str(tmp_path / "a.yaml"), "--on", "model")
    assert done.returncode == 4
    assert "there is nothing to check: kvmscen measure times it" in done.stdout


def test_what_is_not_measured_is_told(tmp_path: Path) -> None:
    timed, other, none = (str(tmp_path / f"{name}.yaml") for name in ("timed", "other", "none"))
    for name in (timed, other):
        Path(name).write_text(ROUND + "measure: {a: {mmio: {is_write: true}, samples: 100}}\n")
    Path(none).write_text(ROUND + "expect: [mmio: {}]\n")
    for arguments, why in (
        ((none,), "has `measure`"),
        ((none, "-k", "none"), "has `measure` and is selected by -k none"),
        ((timed, "-k", "other"), "has `measure` and is selected by -k other"),
    ):
        done = kvmscen("measure", *arguments, "--on", "model")
        assert done.returncode == 4, done.stderr
        assert f"no case of these files {why}\n" in done.stdout


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("more", "lines"),
    [
        ((), ["1 path has no case that has `measure`: {none}"]),
        (
            ("-k", "timed", "--case", "default"),
            [
                "2 paths have no case that has `measure` and is selected by -k timed --case "
                "default: {other}, {none}"
            ],
        ),
    ],
)
def test_a_path_of_which_nothing_is_measured_is_told(
    more: tuple[str, ...], lines: list[str], tmp_path: Path
) -> None:
    names = {name: str(tmp_path / f"{name}.yaml") for name in ("timed", "other", "none")}
    for name, path in names.items():
        measure = "measure: {a: {mmio: {is_write: true}, samples: 100}}\n"
        Path(path).write_text(ROUND + ("expect: [mmio: {}]\n" if name == "none" else measure))
    done = kvmscen("measure", *names.values(), "--on", "kvm", "--rounds", "1", *more)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if " no case that " in line]
    assert told == [line.format(**names) for line in lines]


def test_a_wrong_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ROUND + "measure: {a: {mmio: {phys_addr: cuonter}}}\n")
    for verb in ("measure", "run", "check"):
        done = kvmscen(verb, str(tmp_path / "a.yaml"))
        assert done.returncode == 2
        assert "a.yaml:14:" in done.stdout + done.stderr
        assert "did you mean counter" in done.stdout + done.stderr


# --- another architecture -------------------------------------------------------------------------

ARM64 = """\
arch: arm64
memslots: [{slot: 0, gpa: 0, size: 0x10000}]
sections: {.text: 0, .data: 0x40000}
undecoded: emulate
asm: |
  _start:
      ldr  x2, =counter
  again:
      add  x0, x0, #1
      mov  x3, x2
      str  x0, [x2]
      ldr  x1, [x2]
      cmp  x0, x1
      b.ne bad
      add  x0, x0, #1
      str  x0, [x3], #8           // carried out by user space
      ldr  x1, [x2]
      cmp  x0, x1
      b.ne bad
      b    again
  bad:
      ldr  w0, =0x84000008
      hvc  #0
  .data
  counter: .quad 0, 0
measure:
  store: {mmio: {phys_addr: counter, is_write: true}, samples: 100, warmup: 5}
  load: {mmio: {phys_addr: counter, is_write: false}, samples: 200, warmup: 5}
  undecoded: {arm_nisv: {fault_ipa: counter}, samples: 100, warmup: 5}
  emulated: {from: {mmio: {is_write: false}}, to: {mmio: {is_write: true}}, samples: 100, warmup: 5}
"""


@pytest.mark.qemu
def test_on_a_real_arm64_kvm(qemu_arm64: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    host, environment = qemu_arm64
    (tmp_path / "a.yaml").write_text(ARM64)
    report = tmp_path / "r.json"
    done = kvmscen(
        "measure",
        str(tmp_path / "a.yaml"),
        "--on",
        host,
        "--rounds",
        "1",
        "--report",
        f"json={report}",
        **environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = {
        kind["name"]: kind for kind in json.loads(report.read_text())["results"][0]["measured"]
    }
    assert {name: kind["count"] for name, kind in kinds.items()} == {
        "store": 100,
        "load": 200,
        "undecoded": 100,
        "emulated": 100,
    }
    assert {kind["loop"] for kind in kinds.values()} == {"native"}
    # What is emulated is emulated outside of KVM_RUN.
    assert kinds["store"]["user_share"] < 0.5 < kinds["undecoded"]["user_share"]
    # Alone its exit costs about as much as another; with user space it is the dearest.
    whole = {name: kind["with_user_ns"]["median"] for name, kind in kinds.items()}
    assert kinds["undecoded"]["ns"]["median"] < 3 * kinds["store"]["ns"]["median"]
    assert whole["undecoded"] > 3 * max(whole["store"], whole["load"])
    assert kinds["emulated"]["with_user_ns"] == kinds["emulated"]["ns"]
