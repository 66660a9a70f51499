"""Small inputs that passed once though they should not, from tests/cases/verdict, each with its
right outcome.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).resolve().parent.parent / "cases" / "verdict"


def run(
    tmp_path: Path, *arguments: str, record: str = ""
) -> tuple[int, dict[str, Any], dict[str, list[str]]]:
    """The status, the results by `stem` or `stem:case`, and what was wrong in each file."""
    report = tmp_path / "report.json"
    argv = [sys.executable, "-m", "kvmscen", "run", *arguments, "--report", f"json={report}"]
    done = subprocess.run(
        [*argv, *(["--record", record] if record else [])],
        cwd=CASES,
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stderr
    told = json.loads(report.read_text())
    wrong: dict[str, list[str]] = {}
    for error in told["errors"]:
        wrong.setdefault(error["file"], []).append(f"{error['line']}: {error['message']}")
    return (
        done.returncode,
        {f"{r['scenario']}:{r['case']}".removesuffix(":default"): r for r in told["results"]},
        wrong,
    )


# What must be in one of the mismatches, and the line that it stands at.
FAILS = {
    "fp01-errno-no-expect": (5, "set_memslot succeeded"),
    "fp02-setup-fails-final": (
        None,
        "ended by error: {ioctl: KVM_SET_USER_MEMORY_REGION, errno: EEXIST}",
    ),
    "fp04-then-cascade": (12, "set_memslot succeeded"),
    "fp05-timeout-late": (17, "timeout: 0."),
    "fp09-write-one-of-two": (12, "write_memory succeeded"),
    "fp11-run-error-final": (None, "ended by error: {ioctl: KVM_SET_SREGS, errno: EINVAL}"),
    "bug-false-pass": (12, "set_regs succeeded"),
    "bug-false-pass-memslots:with-hlt": (5, "set_memslot succeeded"),
}
# Two steps, either of which may come next, that a host cannot tell apart: the line of the second.
REFUSED = {
    "fp03-reply-of-other-step": 15,
    "fp03b-poll": 13,
    "fp12-then-after-skip": 15,
    "fp21-model-fail-not-skip": 16,
}
# With `expect: []` the guest is not entered.
EMPTY = ("bug-false-pass-memslots", "bug-false-pass:setup", "fp10-build-cascade")


@pytest.mark.kvm
def test_on_kvm(tmp_path: Path) -> None:
    status, results, wrong = run(
        tmp_path,
        *sorted(
            path.name for path in CASES.glob("*.yaml") if path.name[:4] not in ("fp24", "fp25")
        ),
        "--on",
        "kvm",
    )
    assert status in (1, 2)
    for name, (line, text) in FAILS.items():
        told = results[name]
        assert told["status"] == "FAIL", name
        found = [m for m in told["mismatches"] if text in (m["observed"] or "")]
        assert found, (name, told["mismatches"])
        assert line is None or found[0]["line"] == line
    for name, line in REFUSED.items():
        assert name not in results
        assert [text.partition(":")[0] for text in wrong[f"{name}.yaml"]] == [str(line)]
    for name in EMPTY:
        assert results.get(name, {"status": "ERROR"})["status"] in ("FAIL", "ERROR"), name
    assert results["fp06-xfail-loose"]["status"] == "XPASS"
    # Both addresses are in no memory, so both writes fail.
    assert results["fp08-write-two"]["status"] == "PASS"


@pytest.mark.kvm
def test_a_known_wrong_outcome_that_goes_another_way_says_nothing_of_the_case(
    tmp_path: Path,
) -> None:
    status, results, _ = run(tmp_path, "fp25-xfail-other-reply.yaml", "--on", "kvm")
    assert status == 3
    assert {name: told["status"] for name, told in results.items()} == dict.fromkeys(
        [
            "fp25-xfail-other-reply",
            *(
                f"fp25-xfail-other-reply:{case}"
                for case in (
                    "action",
                    "no-steps",
                    "steps-of-the-case-alone",
                    "ends-before",
                    "goes-on",
                    "waits",
                )
            ),
        ],
        "ERROR",
    )
    assert all("was not tried" in told["reason"] for told in results.values())


@pytest.mark.kvm
def test_a_failing_write_memory_can_be_a_step(tmp_path: Path) -> None:
    status, results, _ = run(tmp_path, "fp26-write-memory-fails.yaml", "--on", "kvm")
    assert (status, results["fp26-write-memory-fails"]["status"]) == (1, "PASS")
    assert results["fp26-write-memory-fails:not-all-done"]["status"] == "FAIL"


def test_a_run_that_fails_at_its_first_access_on_the_model(tmp_path: Path) -> None:
    status, results, _ = run(tmp_path, "fp24-run-fails-final.yaml", "--on", "model")
    assert status == 1
    assert "errno: ENOSYS" in results["fp24-run-fails-final"]["mismatches"][0]["observed"]


@pytest.mark.kvm
@pytest.mark.parametrize("name", ["fp17", "fp18"])
def test_replies_and_actions_that_have_moved_make_a_recording_stale(
    tmp_path: Path, name: str
) -> None:
    (file,) = (path.name for path in CASES.glob(f"{name}*.yaml"))
    kept = str(tmp_path / "kept")
    assert run(tmp_path, file, "--on", "kvm", record=kept)[0] == 0
    assert run(tmp_path, file, "--on", f"replay:{kept}")[0] == 0
    status, results, _ = run(tmp_path, f"{name}b/{file}", "--on", f"replay:{kept}")
    assert status == 3
    (told,) = results.values()
    assert told["status"] == "ERROR"
    assert "record it again" in told["reason"]
