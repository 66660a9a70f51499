"""What is said of an instruction for which Keystone gives no reason: GNU as's reason, and what was
probably meant.
"""

from __future__ import annotations

import pytest
import reference

from kvmscen.asm import Source, assemble
from kvmscen.asm.gnu import targets, tools
from kvmscen.errors import ScenarioError

pytest.importorskip("keystone")


def problems(arch: str, text: str, assembler: str | None = None) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        assemble(arch, 64, Source("s", text), [], 0x1000, assembler)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("assembler", ["keystone", None])
@pytest.mark.parametrize(
    ("arch", "text", "reason"),
    [
        ("arm64", "mov x0, #0x12345", "immediate cannot be moved by a single instruction"),
        ("arm64", "mvo x0, x1", "unknown mnemonic `mvo`"),
        ("arm64", "str x0, x1", "invalid addressing mode at operand 2"),
        ("arm64", "add w0, x1, x2", "operand mismatch; did you mean `add x0, x1, x2`?"),
        ("arm64", "ldr x0, [x1, #32768]", "immediate offset out of range"),
        ("x86_64", "movv rax, 1", "no such instruction"),
        ("x86_64", "mov rax, rbx, rcx", "number of operands mismatch for `mov`"),
        ("x86_64", "mov eax, rbx", "operand type mismatch for `mov`"),
        ("x86_64", "movups xmm1, dword ptr [rdi]", "operand size mismatch for `movups`"),
        ("x86_64", "out 0x1234, al", "0x1234 shortened to 0x34"),
    ],
)
def test_the_reason_of_gnu_as(arch: str, text: str, reason: str, assembler: str | None) -> None:
    reference.tools(arch)
    assert problems(arch, f"nop\n  {text}", assembler) == [
        f"s:2:3: this does not assemble: {text}: {reason} (GNU as)"
    ]


@pytest.mark.parametrize("assembler", ["keystone", "gnu", None])
@pytest.mark.parametrize(
    ("arch", "text", "meant"),
    [
        ("x86_64", "dq 1", "`dq` is another assembler's: write `.quad 1`"),
        ("arm64", "dq 1", "`dq` is another assembler's: write `.quad 1`"),
        ("x86_64", "counter dd 1, 2", "`dd` is another assembler's: write `counter: .long 1, 2`"),
        ("x86_64", 'db "abc", 0', "write `.asciz` or `.ascii` and the string"),
        ("x86_64", "x equ 5", "write `.set x, 5`"),
        ("x86_64", "bits 32", "write `.code32`"),
        ("x86_64", "section .text", "write `.section .text`"),
        ("x86_64", "times 4 nop", "write `.rept 4`, `nop` and `.endr`"),
        ("x86_64", "mov rax rbx", "a comma is missing between rax and rbx"),
        ("x86_64", "mov rax [rbx]", "a comma is missing between rax and [rbx]"),
        ("x86_64", "mov dword ptr [rbx] 5", "a comma is missing between ] and 5"),
        ("arm64", "mov x0 x1", "a comma is missing between x0 and x1"),
        ("arm64", "ldr x0 [x1]", "a comma is missing between x0 and [x1]"),
        ("arm64", "ldr x0, [x1] #8", "a comma is missing between ] and #8"),
    ],
)
def test_what_was_probably_meant(arch: str, text: str, meant: str, assembler: str | None) -> None:
    if assembler != "keystone":
        reference.tools(arch)
    (problem,) = problems(arch, f"nop\n{text}", assembler)
    assert problem.startswith("s:2:1: ")
    assert meant in problem


def test_macros_and_several_errors() -> None:
    reference.tools("arm64")
    text = ".macro put\nstr x1, x2\n.endm\nput\nmvo x0\nb missing"
    assert problems("arm64", text) == [
        "s:4:1: this does not assemble: str x1, x2: invalid addressing mode at operand 2 (GNU as) "
        "(line 2 in macro put)",
        "s:5:1: this does not assemble: mvo x0: unknown mnemonic `mvo` (GNU as)",
        "s:6:1: undefined symbol missing",
    ]


def test_what_only_gnu_as_knows() -> None:
    reference.tools("arm64")
    assert problems("arm64", "paciza x3", "keystone") == [
        "s:1:1: this does not assemble: paciza x3; GNU as knows it: use the assembler gnu"
    ]
    assert problems("arm64", "paciza x3\nb missing") == [
        "s:1:1: this does not assemble: paciza x3; GNU as knows it, and is used where nothing else "
        "is wrong",
        "s:2:1: undefined symbol missing",
    ]


def test_without_gnu_as(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "find", lambda arch: None)
    assert problems("arm64", "mvo x0", "keystone") == ["s:1:1: this does not assemble: mvo x0"]
    (problem,) = problems("arm64", "mvo x0")
    assert problem.startswith(
        "s:1:1: this does not assemble: mvo x0; where it is right, GNU as may know it: apt install "
        "binutils"
    )


def test_nothing_is_told_of_a_program_that_may_have_read_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference.tools("arm64")
    text = '.macro m a b\n.\\a\\()\\b "/etc/hostname"\n.endm\nm inc bin\nmvo x0'
    plain = "this does not assemble: mvo x0"
    for confined in (True, False):
        monkeypatch.setattr(
            tools, "confined_from_files", lambda program, confined=confined: confined
        )
        told = problems("arm64", text, "keystone")
        assert not any(
            "hostname" in problem.replace(text, "") and "open" in problem for problem in told
        )
        assert [problem for problem in told if plain in problem] == [f"s:5:1: {plain}"]
