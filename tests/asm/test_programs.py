"""Whole programs against GNU as and ld, section by section."""

from __future__ import annotations

import pytest
import reference

from kvmscen.asm import Placement, Source, assemble

PLACES = {".text": 0x1000, ".rodata": 0x5000, ".data": 0x8000, ".bss": 0xA000}

ARM64_POOLS = """
_start:
    ldr x0, =5; ldr x1, =0x12345678
    ldr w2, =7
    ldr x3, =msg + 4
    ldr x4, =msg + 4
    ldr x5, =-1
    ldr x6, =0xffffffffffffffff
    ldr d0, =0x3ff0000000000000
    ldr q1, =0x1234
    ldrsw x7, =0x80000000
    b 1f
    .ltorg
    .byte 1         // data in between
    ldr x0, =5
    .align 4
1:  adr x1, msg2; adrp x2, msg
    add x2, x2, :lo12:msg
    ldr x3, [x2, #:lo12:msg]
2:  subs x0, x0, #(3<<2)
    b.ne 2b
    cbz x0, 1b
    tbnz x0, #33, 3f
    /* a comment
       of two lines */
3:  bl func
    .rept 3
    nop
    .endr
    ldr x9, literal
    .balign 8
literal: .quad func - _start, msg
func: ret
msg2: .asciz "in text"
.data
msg: .ascii "a;b\\n\\101\\x41", "c#d"
    .align 3
    .quad msg, func + 8, . - msg, 'a', '\\n', ' '
    .word 0x12345678, -1, 1b - _start
    .hword 1, 2; .short 3
    .fill 3, 2, 0x1234
    .p2align 4, 0xff
    .byte 1, 0xff, -128, end - start
.bss
buffer: .skip 100
    .balign 16
    .quad 0
.section .rodata
start: .string "x", "y"
    .org 0x20
end: .set size, end - start
    .quad size, size * 2 + 1, ~size & 0xff, 1 + 2 | 4, 7 - -3, 100 / 7 % 5, -7 / 2, 1 << 40 >> 3
    .quad (1 == 1) + 5, 3 < 2, 1 && 2, !5, 0b101, 017, 0x1F
    .equ size2, 3
size3 = size2 + 1
    .byte size2, size3
    .text
    mov x0, #size3
    ldr x8, =_start
    .inst 0xd503201f
"""

X64 = """
_start:
    lea rsi, [rip + msg]
    mov ecx, 5
again:
    mov al, [rsi]
    out dx, al
    inc rsi
    dec ecx
    jnz again
    jmp far_away
    je done
    call helper
    mov rax, [counter]
    mov rbx, offset counter
    add qword ptr [counter + 8], 1
    mov dword ptr [rip + counter + 4], 0x12345678
    lea rdx, [counter + rbx*4 + 8]
    jmp data_code
    .balign 16
    jmp 1f
    jmp 2f
    .skip 120, 0x90
1:  jmp 1b
2:  loop 1b
    jrcxz 2b
    .skip 10
    .p2align 6
helper:
    ret
    .zero 200
    .align 256
far_away: jg helper
    jl done
done: hlt   # the end
    .fill 3
    .balign 32, 0xcc
.data
msg: .asciz "hello; # world"
    .align 8
counter: .quad 1, counter, done - _start
    .word 1, 2; .long -1
data_code: .byte 0xf4
.bss
    .space 64
.section .rodata
    .quad msg, _start + 1
"""

BOOT = """
.globl _start
_start:
    cli
    xor ax, ax
    mov ds, ax
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp over
    .skip 100
over:
    jc _start
    call print
    ljmp 8, offset protected
print: mov si, offset text
    lodsb
    ret
text: .asciz "boot"
.code32
protected:
    mov eax, 0x10
    mov ds, ax
    mov esp, 0x7000
    call next
    jmp protected
    .balign 16
next: ret
    pushfd
    iret
    push offset text
    .code16
    .org 510
    .word 0xaa55
.data
gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr: .word gdtr - gdt - 1
    .long gdt
"""

ATT = """.att_syntax
_start:
    movq $counter, %rax
    movq counter, %rbx
    movl counter(%rip), %ecx
    leaq counter(,%rbx,4), %rdx
    movb $5, counter+3(%rip)
    addq $100, 8(%rsp)
    movl %eax, %fs:0x28
    jmp 1f
    call _start
    callq *%rax
    jmp *counter(%rip)
1:  outb %al, %dx
    outb %al, $0x10
    pushq $5
    rep movsb
    lock incl (%rbx)
    cmpl $0x12345678, (%rbx,%rcx,8)
    xorl %eax, %eax
    jne _start
    hlt
.data
counter: .quad counter
"""


@pytest.mark.parametrize(
    ("arch", "bits", "text"),
    [("arm64", 64, ARM64_POOLS), ("x86_64", 64, X64), ("x86_64", 16, BOOT), ("x86_64", 64, ATT)],
    ids=["arm64", "x64", "boot", "att"],
)
def test_same_sections_as_gnu(arch: str, bits: int, text: str) -> None:
    pytest.importorskip("keystone")
    wanted = reference.link(arch, bits, text, PLACES)
    program = assemble(
        arch,
        bits,
        Source("p.s", text),
        [Placement(n, a) for n, a in PLACES.items() if n in text + ".text"],
        0,
    )
    for section in program.sections:
        if not section.nobits:
            assert section.data.hex(" ", 4) == wanted[section.name].hex(" ", 4), section.name


@pytest.mark.parametrize("bits", [64, 32, 16])
def test_padding_is_that_of_gnu_as(bits: int) -> None:
    text = "".join(
        f".skip {512 - count}, 0xcc\n.balign 512\n" for count in [*range(1, 140), 200, 300]
    )
    wanted = reference.link("x86_64", bits, text, {".text": 0})
    program = assemble("x86_64", bits, Source("p.s", text), [], 0)
    assert program.sections[0].data == wanted[".text"]


@pytest.mark.parametrize("distance", range(118, 134))
def test_branches_grow_as_in_gnu_as(distance: int) -> None:
    text = f"a: jmp b\njne c\n.skip {distance}\nb: jmp a\nc: je a\ncall a\n jmp c\n"
    wanted = reference.link("x86_64", 64, text, {".text": 0})
    assert assemble("x86_64", 64, Source("p.s", text), [], 0).sections[0].data == wanted[".text"]
