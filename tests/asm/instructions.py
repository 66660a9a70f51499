# ruff: noqa: E501 (lists as text; an outcome that may be either)
"""Instructions that are compared with GNU as, one a line, made from templates."""

from __future__ import annotations

from itertools import product

_ALU = "add sub and or xor cmp adc sbb mov test".split()
_UNARY = "inc dec neg not mul div idiv imul".split()
_PLACE_64 = "[rbx]|[rbx+8]|[r12]|[r13]|[rsp+16]|[rbx+rcx*4]|[rbx+rcx*8+0x1000]|[rcx*2+5]|[0x50000]|fs:[0x28]|[cell]"
_PLACE_64 += (
    "|[cell+8]|[cell+rbx*4+8]|[rip+cell]|[rip+8]|gs:[rbx]|[rbx-4]|[rbx+0x80]|[r8+r9*1]|[rbp]"
)
_PLACE_32 = "[ebx]|[ebx+8]|[esp+16]|[ebx+ecx*4]|[ecx*2+5]|[0x50000]|fs:[0x28]|[cell]|[cell+ebx*4+8]|[ebp]|[bx+si]"
_PLACE_16 = "[bx]|[bx+si]|[bp+di+8]|[si]|[di+0x1000]|[0x500]|es:[di]|[cell]|[cell+bx]|[eax]|[ebx+ecx*4]|[bp]"


def arm64() -> list[str]:
    """arm64 instructions."""
    lines = [
        f"{op} {r}0, {r}1, {r}2"
        for op in "add sub and orr eor bic orn mul udiv sdiv lsl lsr asr ror".split()
        for r in "xw"
    ]
    lines += [
        f"{op} x3, x4, #{n}"
        for op in ("add", "sub", "adds", "subs")
        for n in ("0", "1", "0xfff", "0x1000", "(3<<2)")
    ]
    lines += [
        f"{op} x3, x4, #{n}"
        for op in ("and", "orr", "eor")
        for n in ("1", "0xff", "0xffff0000", "(1<<3|4)", "~7")
    ]
    lines += [
        f"mov {r}5, #{n}"
        for r in "xw"
        for n in ("0", "1", "0x1234", "0x10000", "-1", "0xffff0000", "'a'", "1<<20")
    ]
    lines += [
        f"mov x5, #{n}"
        for n in ("0x123400000000", "0xffffffffffff1234", "0x5555555555555555", "N", "N+2", "-N")
    ]
    lines += [
        f"{op} x6, [x7{a}"
        for op in ("ldr", "str")
        for a in ("]", ", #8]", ", #8]!", "], #8", ", x8]", ", x8, lsl #3]")
    ]
    lines += [
        f"{op} x6, [x7, {a}]"
        for op in ("ldr", "str")
        for a in ("w8, uxtw", "w8, sxtw #3", "#(4*2)", "#N*8", "#-8")
    ]
    lines += [
        f"{op} w9, [sp, #{n}]"
        for op in ("ldrb", "strb", "ldrh", "strh", "ldrsb", "ldrsh", "ldur", "stur")
        for n in (0, 2)
    ]
    lines += [
        f"{op} x0, x1, [x2{a}"
        for op in ("ldp", "stp")
        for a in ("]", ", #16]", ", #-16]!", "], #16")
    ]
    lines += [
        "ldpsw x0, x1, [x2]",
        "ldp w0, w1, [x2, #4]",
        "stp q0, q1, [x3]",
        "ldnp x0, x1, [x2]",
        "ldrsw x1, [x2, #4]",
    ]
    lines += [
        "stp xzr, xzr, [x2], #16",
        "str xzr, [x2], #8",
        "str wzr, [x2, #4]!",
        "ldr q0, [x1, #16]",
        "str d0, [x1], #8",
    ]
    lines += [
        "ldr s1, [x1, #4]",
        "str h1, [x1, #2]",
        "str b1, [x1, #1]",
        "ldtr x0, [x1]",
        "sttr w0, [x1, #4]",
    ]
    lines += [
        f"{op} w0, [x1]"
        for op in ("ldar", "stlr", "ldaxr", "ldxr", "ldarb", "stlrh", "ldaxrb", "ldxrh")
    ]
    lines += [f"{op} w2, x0, [x1]" for op in ("stxr", "stlxr")] + [
        "stxp w2, x3, x4, [x5]",
        "ldaxp x3, x4, [x5]",
        "clrex",
    ]
    lines += [
        f"mrs x0, {r}"
        for r in "midr_el1 mpidr_el1 sctlr_el1 currentel cntvct_el0 esr_el1 far_el1 s3_0_c0_c0_0".split()
    ]
    lines += [
        f"msr {r}, x1"
        for r in "vbar_el1 ttbr0_el1 tcr_el1 mair_el1 sctlr_el1 elr_el1 spsr_el1 tpidr_el1 sp_el0".split()
    ]
    lines += [
        "msr daifset, #2",
        "msr daifclr, #0xf",
        "msr spsel, #1",
        "isb",
        "dsb sy",
        "dsb ish",
        "dmb ishld",
        "dmb sy",
        "dsb nsh",
    ]
    lines += [
        "dc zva, x0",
        "dc civac, x1",
        "dc ivac, x2",
        "dc cvau, x3",
        "ic iallu",
        "ic ivau, x0",
        "tlbi vmalle1",
        "tlbi vae1, x0",
    ]
    lines += [
        "at s1e1r, x0",
        "svc #0",
        "hvc #1",
        "smc #N",
        "brk #0x10",
        "hlt #3",
        "eret",
        "ret",
        "ret x3",
        "br x4",
        "blr x5",
        "nop",
    ]
    lines += [
        "wfi",
        "wfe",
        "sev",
        "sevl",
        "yield",
        "hint #0x20",
        "drps",
        "cmp x0, #5",
        "cmp w0, w1",
        "cmn x0, #1",
        "tst x0, #0xff",
    ]
    lines += [
        "ccmp x0, #1, #0, eq",
        "csel x0, x1, x2, ne",
        "cset x0, hi",
        "csinc w0, w1, w2, lt",
        "cinc x0, x1, ge",
        "cneg w0, w1, mi",
    ]
    lines += [
        "movz x0, #1",
        "movz x0, #1, lsl #16",
        "movk x0, #0xffff, lsl #(16*2)",
        "movn x0, #0",
        "mvn x0, x1",
        "neg x0, x1",
    ]
    lines += [
        "add x0, x1, x2, lsl #3",
        "sub x0, sp, #16",
        "add sp, sp, #N",
        "mov sp, x0",
        "mov x0, sp",
        "add x0, x1, w2, uxtw #2",
    ]
    lines += [
        "ubfx x0, x1, #4, #8",
        "sbfx w0, w1, #4, #8",
        "bfi x0, x1, #4, #8",
        "lsl x0, x1, #4",
        "asr w0, w1, #(1+2)",
        "ror x0, x1, #1",
    ]
    lines += [
        "extr x0, x1, x2, #8",
        "clz x0, x1",
        "rbit w0, w1",
        "rev x0, x1",
        "rev16 w0, w1",
        "rev32 x0, x1",
        "sxtw x0, w1",
        "uxtb w0, w1",
    ]
    lines += [
        "madd x0, x1, x2, x3",
        "msub w0, w1, w2, w3",
        "smull x0, w1, w2",
        "umulh x0, x1, x2",
        "fmov d0, x1",
        "fmov x0, d1",
    ]
    lines += [
        "fadd d0, d1, d2",
        "fmul s0, s1, s2",
        "fmov d0, #1.0",
        "scvtf d0, x0",
        "fcvtzs x0, d0",
        "fcmp d0, d1",
        "fcmp d0, #0.0",
    ]
    lines += [
        "ld1 {v0.16b}, [x0]",
        "st1 {v0.4s}, [x0], #16",
        "ld1 {v0.2d, v1.2d}, [x1]",
        "st4 {v0.8b - v3.8b}, [x2]",
        "movi v0.2d, #0",
    ]
    lines += [
        "add v0.4s, v1.4s, v2.4s",
        "dup v0.4s, w1",
        "umov w0, v1.s[2]",
        "ins v0.d[1], x1",
        "crc32x w0, w1, x2",
        "ld1r {v0.4s}, [x0]",
    ]
    lines += [
        "prfm pldl1keep, [x0]",
        "prfm pstl1strm, [x0, #8]",
        "cbz x0, #16",
        "b . + 8",
        "b.eq . - 4",
        "tbz w0, #3, . + 4",
        "bl .",
        "b .",
    ]
    lines += [
        "adr x0, .",
        "adr x0, . + 5",
        "adrp x0, cell",
        "adr x1, cell + 1",
        "add x0, x0, :lo12:cell",
        "add x0, x0, #:lo12:cell + 4",
    ]
    lines += [
        "ldr x0, [x0, #:lo12:cell]",
        "ldr w0, [x0, :lo12:cell+4]",
        "strb w1, [x0, #:lo12:cell]",
        "bhi . + 4",
        "ldrsw x0, cell",
    ]
    lines += [
        "ldr x0, cell",
        "ldr w0, cell",
        "ldr d0, cell",
        "ldr q0, cell",
        "prfm pldl1keep, cell",
        "b.hs .",
        "b.cc .",
        "beq .",
    ]
    lines += [
        "esb",
        "csdb",
        "paciasp",
        "autiasp",
        "bti c",
        "bti",
        "sb",
        "udf #3",
        "xpaclri",
        "retaa",
    ]
    return lines + _atomics()


def _atomics() -> list[str]:
    lines = [
        f"{op}{order} {r}0, {r}1, [x2]"
        for op in ("ldadd", "swp", "cas", "ldset")
        for order in ("", "a", "l", "al")
        for r in "xw"
    ]
    lines += [
        f"{op} w0, w1, [sp]"
        for op in ("ldaddb", "swpalh", "casab", "ldclrlh", "ldumaxb", "ldsmin", "ldeorh", "casalh")
    ]
    return [
        *lines,
        "stadd x0, [x1]",
        "stclrl w0, [x1]",
        "casp x0, x1, x2, x3, [x4]",
        "caspal w0, w1, w2, w3, [x4]",
        "ldapr x0, [x1]",
        "ldaprb w0, [x1]",
    ]


def _common(registers: dict[int, list[str]], places: str) -> list[str]:
    lines = []
    for op in _ALU:
        for regs in registers.values():
            lines += [f"{op} {regs[0]}, {regs[1]}", f"{op} {regs[1]}, 5", f"{op} {regs[0]}, 0x7f"]
    for op, regs in product(_UNARY, registers.values()):
        lines.append(f"{op} {regs[1]}")
    for regs in registers.values():
        lines += [f"mov {regs[0]}, {place}" for place in places.split("|")]
        lines += [f"add {place}, {regs[1]}" for place in places.split("|")]
    for place, (size, bits) in product(
        [*places.split("|")[:4], "[cell]"], (("byte", 8), ("word", 16), ("dword", 32))
    ):
        lines += [f"{op} {size} ptr {place}, 5" for op in ("mov", "add", "cmp", "and")] + [
            f"inc {size} ptr {place}"
        ]
        lines.append(f"mov {size} ptr {place}, N+{bits}")
    for regs in list(registers.values())[1:]:
        lines += [
            f"add {regs[1]}, 0x80",
            f"cmp {regs[0]}, 0x1234",
            f"and {regs[1]}, -16",
            f"xor {regs[1]}, 0xfff0",
            f"lea {regs[0]}, [cell]",
        ]
        lines += [
            f"lea {regs[0]}, {places.split('|')[5]}",
            f"shl {regs[1]}, 1",
            f"shr {regs[1]}, 4",
            f"sar {regs[0]}, cl",
            f"rol {regs[0]}, N",
        ]
        lines += [
            f"xchg {regs[0]}, {regs[1]}",
            f"xadd {regs[0]}, {regs[1]}",
            f"bt {regs[0]}, 3",
            f"bsf {regs[0]}, {regs[1]}",
            f"imul {regs[0]}, {regs[1]}, 10",
        ]
        lines += [
            f"mov {regs[1]}, offset cell",
            f"add {regs[1]}, offset cell + 4",
            f"cmp {regs[0]}, offset cell",
            f"imul {regs[0]}, {regs[1]}, 1000",
        ]
        lines += [
            f"movzx {regs[0]}, cl",
            f"movsx {regs[0]}, bl",
            f"cmovne {regs[0]}, {regs[1]}",
            f"test {regs[1]}, 0x1234",
            f"mov {regs[0]}, -2",
        ]
    lines += (
        "in al, dx|in ax, dx|in eax, dx|out dx, al|out dx, ax|out dx, eax|in al, 0x10|out "
        "0x10, al|out N, eax|in ax, 0xf0"
    ).split("|")
    lines += (
        "hlt|nop|cli|sti|cld|std|cpuid|rdmsr|wrmsr|rdtsc|rdtscp|invd|wbinvd|ud2|int3|int "
        "3|int 0x80|pause|mfence|lfence"
    ).split("|")
    lines += (
        "rep movsb|rep stosd|rep stosw|repne scasb|lodsb|stosw|movsd|movsw|cmpsb|rep "
        "insb|rep outsw|rep outsb|insd|outsd|scasd"
    ).split("|")
    lines += (
        "mov ds, ax|mov ax, es|mov ss, cx|mov fs, ax|mov gs, "
        "dx|clts|xgetbv|xsetbv|vmcall|vmmcall|monitor|mwait|sldt ax|str ax"
    ).split("|")
    lines += (
        "lldt ax|ltr ax|lmsw ax|smsw ax|verr ax|sete al|setb "
        "cl|cbw|cwde|cwd|cdq|sahf|lahf|xlatb|cmc|stc|clc|fninit|wait"
    ).split("|")
    lines += (
        "lock inc dword ptr [cell]|lock add word ptr [cell], 1|lock xadd [cell], eax|lock "
        "cmpxchg [cell], ecx|cmpxchg8b [cell]"
    ).split("|")
    lines += (
        "push fs|pop gs|enter 8, 0|leave|ret|ret 8|retf|retf "
        "4|iret|iretd|iretw|pushf|popf|push 5|push -1|push 0x1234"
    ).split("|")
    lines += (
        "push N|push offset cell|call cell|jmp cell|jne cell|xor eax, eax|bswap eax|addps "
        "xmm0, xmm1|movups xmm0, [cell]"
    ).split("|")
    return [
        *lines,
        "movd xmm0, eax",
        "movdqu [cell], xmm1",
        "fld dword ptr [cell]",
        "fstp qword ptr [cell]",
        "emms",
        "serialize",
        "wbnoinvd",
    ]


def x64() -> list[str]:
    """64-bit instructions."""
    registers = {
        8: ["al", "cl"],
        16: ["ax", "dx"],
        32: ["eax", "ecx"],
        64: ["rax", "rcx"],
        65: ["r8", "r15"],
    }
    lines = _common(registers, _PLACE_64)
    lines += (
        "mov rax, cr0|mov cr3, rax|mov cr4, rcx|mov rax, dr7|mov cr8, rax|push rax|pop "
        "r12|push qword ptr [cell]|call rax"
    ).split("|")
    lines += (
        "jmp rax|call [cell]|jmp [cell]|call qword ptr [rbx+8]|jmp qword ptr [rip+cell]|jmp "
        "r9|call [rip+cell]|jmp fword ptr [rbx]"
    ).split("|")
    lines += (
        "lgdt [cell]|lidt [rbx]|sgdt [rip+cell]|sidt [cell]|invlpg "
        "[rax]|swapgs|syscall|sysretq|iretq|lretq|pushfq|popfq"
    ).split("|")
    lines += (
        "movabs rax, 0x1122334455667788|movabs rax, offset cell|movabs rax, "
        "[0x112233445566]|movabs [cell], eax|mov rax, 0xffffffff"
    ).split("|")
    lines += (
        "mov rax, 0xffffffff80000000|mov r10, 0x80000000|mov ecx, 0xffffffff|mov rcx, "
        "0x123456789a|movsxd rax, ecx|cqo|cdqe"
    ).split("|")
    lines += (
        "endbr64|vmrun|vmload|vmsave|stgi|clgi|clac|stac|rdpkru|xsave [rbx]|xrstor "
        "[rbx]|fxsave [cell]|rdfsbase rax|wrgsbase rcx"
    ).split("|")
    lines += (
        "mov qword ptr [rbx], 5|mov qword ptr [cell], offset cell|add qword ptr [rip+cell], "
        "1|cmp dword ptr [rip+cell+4], 0x1234"
    ).split("|")
    lines += (
        "cmpxchg16b [cell]|rep movsq|stosq|lodsq|in al, dx|movnti [cell], rax|mov al, "
        "r9b|mov sil, 5|mov r8d, 1|mov r9w, 2"
    ).split("|")
    lines += (
        "mov eax, [0xfee00030]|mov [0xfee000b0], eax|nop dword ptr [rax]|nop word ptr "
        "[rax+rax*1]|bt eax, 255"
    ).split("|")
    lines += (
        "mov eax, [rsp+rbx]|mov eax, [rbx+rsp]|mov ds, r8w|jmp fword ptr [r9]|mov ah, bh|mov "
        "ah, [rbx]|push word ptr [rbx]"
    ).split("|")
    return [
        *lines,
        "lea rax, [rip+cell]",
        "mov eax, [cell-4]",
        "add rax, 0x7fffffff",
        "vmovdqu ymm0, [cell]",
        "vpxor ymm0, ymm1, ymm2",
        "bt qword ptr [cell], 5",
    ]


def x32() -> list[str]:
    """32-bit instructions."""
    return _common({8: ["al", "cl"], 16: ["ax", "dx"], 32: ["eax", "ecx"]}, _PLACE_32) + _narrow()


def x16() -> list[str]:
    """16-bit instructions."""
    return _common({8: ["al", "cl"], 16: ["ax", "dx"], 32: ["eax", "ecx"]}, _PLACE_16) + _narrow()


def _narrow() -> list[str]:
    lines = (
        "push ds|pop es|push cs|push ss|pop ss|pop ds|push es|pop fs|push "
        "gs|pusha|popa|pushad|popad|pushfd|popfd|pushfw"
    ).split("|")
    lines += (
        "lgdt [cell]|lidt [cell]|sgdt [cell]|sidt [cell]|lgdt [eax]|lidt [bx+4]|lgdt "
        "cs:[cell]|call ax|call eax|jmp ax|jmp eax"
    ).split("|")
    lines += (
        "call [bx]|call word ptr [bx]|call dword ptr [bx]|jmp word ptr [bx]|jmp dword ptr "
        "[cell]|call [cell]|jmp [cell]"
    ).split("|")
    lines += (
        "call far ptr [bx]|jmp far ptr [bx]|call fword ptr [cell]|ljmp 8, offset cell|ljmp "
        "8, 0x1234|lcall 8, 0x1234"
    ).split("|")
    lines += (
        "jmp 8:cell|push ax|push eax|pop cx|pop edx|push word ptr [cell]|push dword ptr "
        "[cell]|pop word ptr [cell]|mov eax, cr0"
    ).split("|")
    lines += (
        "mov cr0, eax|mov cr3, ecx|mov dr7, eax|aaa|daa|aam|into|bound ax, [cell]|les ax, "
        "[cell]|lds si, [cell]|lss sp, [cell]"
    ).split("|")
    return [
        *lines,
        "xbegin cell",
        "invlpg [cell]",
        "inc ax",
        "dec ecx",
        "pushw 5",
        "pushd 5",
        "lss esp, [cell]",
        "jmp 0x1234",
        "call 0x1234",
    ]
