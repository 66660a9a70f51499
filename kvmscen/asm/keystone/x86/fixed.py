"""x86 instructions that are encoded here: what Keystone does not know, and what it gets wrong in 16
and 32 bits.
"""

from __future__ import annotations

from kvmscen.asm.keystone.x86.operands import SEGMENTS, Operand

_BYTES = """
endbr64 f30f1efa|endbr32 f30f1efb|serialize 0f01e8|wbnoinvd f30f09|vmrun 0f01d8|vmmcall 0f01d9
vmload 0f01da
vmsave 0f01db|stgi 0f01dc|clgi 0f01dd|vmgexit f30f01d9|vmcall 0f01c1|vmlaunch 0f01c2
vmresume 0f01c3|vmxoff 0f01c4
monitor 0f01c8|mwait 0f01c9|clac 0f01ca|stac 0f01cb|xgetbv 0f01d0|xsetbv 0f01d1|vmfunc 0f01d4
xend 0f01d5|xtest 0f01d6
rdpkru 0f01ee|wrpkru 0f01ef|swapgs 0f01f8|rdtscp 0f01f9|monitorx 0f01fa|mwaitx 0f01fb|clzero 0f01fc
rdpru 0f01fd
mcommit f30f01fa|psmash f30f01ff|pvalidate f20f01ff|getsec 0f37|int1 f1|icebp f1|int3 cc|pause f390
ud2 0f0b
sysretq 480f07|sysexitq 480f35|lretq 48cb|retfq 48cb|iretq 48cf|hlt f4|nop 90|cli fa|sti fb|cld fc
std fd|cpuid 0fa2
rdmsr 0f32|wrmsr 0f30|rdtsc 0f31|rdpmc 0f33|invd 0f08|wbinvd 0f09|mfence 0faef0|lfence 0faee8
sfence 0faef8
saveprevssp f30f01ea|setssbsy f30f01e8|xsusldtrk f20f01e8|xresldtrk f20f01e9|tdcall 660f01cc
clts 0f06
sysretl 0f07|sysexit 0f35|syscall 0f05|sysenter 0f34|fwait 9b|wait 9b|enclv 0f01c0|encls 0f01cf
enclu 0f01d7
"""
FIXED = {
    name: bytes.fromhex(code)
    for name, code in (pair.split() for pair in _BYTES.replace("\n", "|").split("|") if pair)
}
_LONG_ONLY = frozenset(["sysretq", "sysexitq", "lretq", "retfq", "iretq", "swapgs"])
# Mnemonic: opcode and operand size, 0 for the mode's own. `q` forms are 64 bit only.
_NATURAL = {
    "iret": (0xCF, 0), "iretw": (0xCF, 16), "iretd": (0xCF, 32), "iretl": (0xCF, 32),
    "pushf": (0x9C, 0), "pushfw": (0x9C, 16), "pushfd": (0x9C, 32), "pushfl": (0x9C, 32),
    "pushfq": (0x9C, 64),
    "popf": (0x9D, 0), "popfw": (0x9D, 16), "popfd": (0x9D, 32), "popfl": (0x9D, 32),
    "popfq": (0x9D, 64),
    "pusha": (0x60, 0), "pushaw": (0x60, 16), "pushad": (0x60, 32), "pushal": (0x60, 32),
    "popa": (0x61, 0), "popaw": (0x61, 16), "popad": (0x61, 32), "popal": (0x61, 32),
    "leave": (0xC9, 0), "leavew": (0xC9, 16), "leaved": (0xC9, 32), "leavel": (0xC9, 32),
    "leaveq": (0xC9, 64),
}  # fmt: skip
_RETURN = {
    "ret": (0xC2, 0),
    "retn": (0xC2, 0),
    "retw": (0xC2, 16),
    "retl": (0xC2, 32),
    "retd": (0xC2, 32),
}
_RETURN.update(
    {
        "retq": (0xC2, 64),
        "retf": (0xCA, 0),
        "lret": (0xCA, 0),
        "lretw": (0xCA, 16),
        "lretl": (0xCA, 32),
    }
)
_RETURN.update({"retfw": (0xCA, 16), "retfd": (0xCA, 32)})
_SEGMENT_PUSH = {"es": "06", "cs": "0e", "ss": "16", "ds": "1e", "fs": "0fa0", "gs": "0fa8"}
_TABLES = {"lgdt": 2, "lidt": 3, "sgdt": 0, "sidt": 1}
PREFIXES = {
    "rep": 0xF3,
    "repe": 0xF3,
    "repz": 0xF3,
    "repne": 0xF2,
    "repnz": 0xF2,
    "lock": 0xF0,
    "data16": 0x66,
}
PREFIXES.update(
    {"addr32": 0x67, "data32": 0x66, "addr16": 0x67, "xacquire": 0xF2, "xrelease": 0xF3}
)
_LEGACY = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67")


def without_operands(word: str, mode: int) -> bytes | None:
    """An instruction that has no operands, None where it is not known here."""
    if word in FIXED:
        return None if word in _LONG_ONLY and mode != 64 else FIXED[word]
    if word in _NATURAL:
        opcode, size = _NATURAL[word]
        if mode == 64 and (opcode in (0x60, 0x61) or (size == 32 and opcode != 0xCF)):
            return None
        return (
            None
            if size == 64 and mode != 64
            else size_prefix(size, mode, opcode == 0xCF) + bytes([opcode])
        )
    if word in _RETURN:
        opcode, size = _RETURN[word]
        if (size == 64) > (mode == 64) or (mode == 64 and size == 32 and opcode == 0xC2):
            return None
        return size_prefix(size, mode, opcode == 0xCA) + bytes([opcode + 1])
    return None


def size_prefix(size: int, mode: int, narrow: bool = False) -> bytes:
    """66 where the operand size is not the mode's own; `narrow` where that is 32 in 64-bit code,
    not 64.
    """
    own = 32 if mode == 64 and narrow else mode
    return b"\x66" if size and size != own else b""


def with_number(word: str, value: int, size: int, mode: int) -> bytes | None:
    """`ret 4` and `push 5`, None where it is neither or the number does not fit."""
    if word in _RETURN:
        opcode, wanted = _RETURN[word]
        if not -0x8000 <= value < 0x10000 or (wanted == 64) > (mode == 64):
            return None
        return (
            size_prefix(wanted, mode, opcode == 0xCA)
            + bytes([opcode])
            + (value & 0xFFFF).to_bytes(2, "little")
        )
    if word in ("push", "pushw", "pushd", "pushl", "pushq"):
        wanted = {"pushw": 16, "pushd": 32, "pushl": 32, "pushq": 64}.get(word, size)
        if (wanted == 64) > (mode == 64) or (mode == 64 and wanted == 32 and word != "pushd"):
            return None
        return push_number(value, 0 if word == "pushd" and mode == 64 else wanted, mode)
    return None


def push_number(value: int, wanted: int, mode: int) -> bytes | None:
    """`push` of an immediate of `wanted` bits, 0 for the mode's own size."""
    bits = wanted or mode
    width = 2 if bits == 16 else 4
    if bits != 64 and value >= 1 << (8 * width - 1):
        value -= 1 << (8 * width)
    if not -(1 << (8 * width - 1)) <= value < 1 << (8 * width - 1):
        return None
    prefix = size_prefix(wanted, mode)
    if -128 <= value < 128:
        return prefix + b"\x6a" + (value & 0xFF).to_bytes(1, "little")
    return prefix + b"\x68" + (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def segment_push(word: str, register: str, mode: int) -> bytes | None:
    """`push ds`, `pop es`: None where there is no such instruction."""
    if (
        register not in SEGMENTS
        or word not in ("push", "pop")
        or (mode == 64 and register not in ("fs", "gs"))
    ):
        return None
    if word == "pop" and register == "cs":
        return None
    code = bytes.fromhex(_SEGMENT_PUSH[register])
    return code if word == "push" else code[:-1] + bytes([code[-1] + 1])


def memory_group(word: str, operand: Operand, mode: int) -> tuple[bytes, int, int] | None:
    """Opcode, the number in its ModRM byte and operand size, of instructions with one memory
    operand.
    """
    if word in _TABLES and mode != 64:
        return b"\x0f\x01", _TABLES[word], 32 if operand.size == 48 and mode == 16 else 0
    if word == "nop" and operand.size in (16, 32):
        return b"\x0f\x1f", 0, operand.size if operand.size == 16 or mode == 16 else 0
    if word in ("call", "jmp", "lcall", "ljmp"):
        far = word[0] == "l" or operand.distance == "far" or operand.size == 48
        far = far or (operand.size == 32 and mode == 16) or (operand.size == 80)
        number = (3 if far else 2) if word.endswith("call") else (5 if far else 4)
        if far:
            return b"\xff", number, 32 if operand.size == 48 and mode == 16 else 0
        if operand.size not in (0, 16, 32, 64) or (mode == 64 and operand.size == 32):
            return None
        return b"\xff", number, 0 if mode == 64 and operand.size == 64 else operand.size
    return None


def order_prefixes(code: bytes) -> bytes:
    """`code` with its prefixes in the order of GNU as: segment, address size, operand size."""
    at = 0
    while at < len(code) and code[at] in _LEGACY:
        at += 1
    if at < 2:
        return code
    return (
        bytes(sorted(code[:at], key=lambda prefix: (prefix == 0x67) + 2 * (prefix == 0x66)))
        + code[at:]
    )


def put_prefix(prefix: int, code: bytes) -> bytes:
    """`code` with another prefix, behind those that GNU as puts before it."""
    at = 0
    while at < len(code) and code[at] in _LEGACY:
        at += 1
    return code[:at] + bytes([prefix]) + code[at:]


_NOPS = {
    64: """90 6690 0f1f00 0f1f4000 0f1f440000 660f1f440000 0f1f8000000000 0f1f840000000000
        660f1f840000000000 662e0f1f840000000000 66662e0f1f840000000000""",
    32: "90 6690 8d7600 8d742600 8d74260090 8db600000000 8db42600000000",
    16: "90 6690 8d7400 8db40000",
}
_PADDING = {mode: [bytes.fromhex(code) for code in text.split()] for mode, text in _NOPS.items()}


def padding(count: int, mode: int) -> bytes:
    """`count` bytes of instructions that do nothing, those that GNU as uses."""
    nops, most = _PADDING[mode], 7 if mode == 64 else 2
    longest = len(nops)
    head = b""
    if count // longest > most:
        if count - 2 < 128:
            head = b"\xeb" + bytes([count - 2])
        else:
            head = b"\x66" * (mode == 16) + b"\xe9"
            head += (count - len(head) - 4).to_bytes(4, "little")
        count -= len(head)
    whole, rest = divmod(count, longest)
    return head + nops[-1] * whole + (nops[rest - 1] if rest else b"")
