"""The scenarios that the benchmark runs: each with other addresses, data and code, so that no cache
helps unfairly.
"""

from __future__ import annotations

import struct
from pathlib import Path

X86 = """\
summary: Guest {n} stores to a device, writes a port and halts.
arch: x86_64

memslots:
  - {{slot: 0, gpa: {slot:#x}, size: 0x1000}}

sections:
  .text: {slot:#x}
  .data: {device:#x}       # inside no slot

asm: |
  _start:
      mov  rbx, offset counter
      mov  rax, {value:#x}
      mov  qword ptr [rbx], rax
      mov  dx, {port:#x}
      mov  eax, {out:#x}
      out  dx, eax
      hlt
  .data
  counter: .quad 1, 2

expect:
  - mmio: {{phys_addr: counter, is_write: true, len: 8, data: {value:#x}}}
  - io: {{direction: out, port: {port:#x}, size: 4, data: {out:#x}}}
  - hlt
"""

ARM64 = """\
summary: Guest {n} stores to a device twice and powers off.
arch: arm64

memslots:
  - {{slot: 0, gpa: {slot:#x}, size: 0x1000}}

sections:
  .text: {slot:#x}
  .data: {device:#x}       # inside no slot

asm: |
  _start:
      ldr  x2, =counter
      ldr  x1, ={value:#x}
      str  x1, [x2]
      str  w1, [x2, #8]
      ldr  w0, =0x84000008
      hvc  #0
  .data
  counter: .quad 1, 2

expect:
  - mmio: {{phys_addr: counter, is_write: true, len: 8, data: {value:#x}}}
  - mmio: {{phys_addr: counter + 8, is_write: true, len: 4, data: {low:#x}}}
  - system_event: {{type: shutdown}}
"""

# One guest of as many different exits as a case may have, but for the last two.
MANY = """\
summary: A guest stores {count} values to a device, one by one, writes a port and halts.
arch: x86_64

memslots:
  - {{slot: 0, gpa: 0x1000, size: 0x1000}}

sections:
  .text: 0x1000
  .data: {device:#x}       # inside no slot

asm: |
  _start:
      mov  rbx, offset counter
      mov  rax, {value:#x}
      mov  ecx, {count}
  1:  mov  qword ptr [rbx], rax
      inc  rax
      dec  ecx
      jnz  1b
      mov  dx, {port:#x}
      mov  eax, {out:#x}
      out  dx, eax
      hlt
  .data
  counter: .quad 1, 2

limits: {{exits: 100000, timeout: 120}}

expect:
  - mmio: {{phys_addr: counter, is_write: true, len: 8, data: {{from: {value:#x}, step: 1}}}}
    repeat: {count}
  - io: {{direction: out, port: {port:#x}, size: 4, data: {out:#x}}}
  - hlt
"""

# Programs of 20 lines.
PROGRAMS = {
    "x86_64": """\
.globl _start
_start:
    mov  rbx, offset counter
    mov  rax, {value:#x}
    xor  ecx, ecx
again:
    mov  qword ptr [rbx + rcx*8], rax
    add  rax, {low:#x} & 0x7fffff
    inc  ecx
    cmp  ecx, 3
    jne  again
    mov  dx, {port:#x}
    mov  eax, {out:#x}
    out  dx, eax
    lea  rsi, [rip + message]
    call done
done: hlt
.data
counter: .quad {n}, 2, 3
message: .asciz "guest {n}"
""",
    "arm64": """\
.global _start
_start:
    ldr  x2, =counter
    ldr  x1, ={value:#x}
    mov  w3, #{port:#x}
again:
    str  x1, [x2], #8
    add  x1, x1, #{port:#x} & 0xfff
    subs w3, w3, #1
    b.ne again
    adr  x4, done
    adrp x5, message
    add  x5, x5, :lo12:message
    ldrb w6, [x5, #1]
    br   x4
done:
    hvc  #{port:#x}
.data
counter: .quad {n}, 2, 3
message: .asciz "guest {n}"
""",
}

# One guest as bare.c reads it: slot gpa and size, entry, tables, mmio address and value, port,
# value, bytes of code, how often it stores beyond the first time, code.
RECORD = struct.Struct("<6QHxxIII192s")


def numbers(n: int) -> dict[str, int]:
    """What differs from guest to guest."""
    value = (0x9E3779B97F4A7C15 * (n + 1)) & 0x7FFFFFFFFFFFFFFF
    return {
        "n": n,
        "slot": 0x1000 * (n % 509),
        "device": 0x40000000 + 0x40 * n,
        "value": value,
        "low": value & 0xFFFFFFFF,
        "port": 0x100 + n % 0x8000,
        "out": (value >> 20) & 0x7FFFFFFF,
    }


def write(folder: Path, template: str, count: int, first: int = 0) -> list[str]:
    """`count` scenarios of a template into a folder."""
    folder.mkdir(parents=True)
    files = []
    for n in range(first, first + count):
        file = folder / f"guest-{n:05}.yaml"
        file.write_text(template.format(**numbers(n)))
        files.append(str(file))
    return files


def records(files: list[str], more: int = 0) -> bytes:
    """The same x86 guests for bare.c: what `kvmscen show --json` says of each file, and the exits
    that it must make. `more`: how often each stores beyond the first time.
    """
    # `show` is what the command prints; a thousand starts of the command itself would take minutes.
    from kvmscen.compile.show import show

    out = bytearray()
    for n, file in enumerate(files):
        case = show(file, None)["cases"][0]
        (slot,) = case["memslots"]
        text = next(bytes.fromhex(s["bytes"]) for s in case["sections"] if s["name"] == ".text")
        assert slot["gpa"] == next(s["gpa"] for s in case["sections"] if s["name"] == ".text")
        own = numbers(n)
        out += RECORD.pack(
            slot["gpa"],
            slot["size"],
            case["entry"],
            case["tables"]["gpa"],
            case["symbols"]["counter"],
            own["value"],
            own["port"],
            own["out"],
            len(text),
            more,
            text,
        )
    return bytes(out)
