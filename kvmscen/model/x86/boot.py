"""x86: the state in which a vCPU starts, put into Unicorn."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from unicorn import x86_const as const

from kvmscen.model.building import Unpredicted
from kvmscen.model.x86 import paging
from kvmscen.model.x86.processor import EFER, Processor
from kvmscen.sent.arch import x86_64
from kvmscen.sent.machine import Vcpu

_USER = 3
_CR0_REAL = 0x60000010  # as a reset leaves it: CD, NW, ET
# What may differ from where kvmscen starts a vCPU by itself, beside the general and xmm registers:
# always, in real mode, and in long mode, where the guest may bring its own tables and start in user
# mode.
_ALWAYS = ("idt.base", "idt.limit", "cr2", "cr8")
_LONG = ("cr3", "gdt.base", "gdt.limit", "cs.selector", "cs.dpl", "ss.selector", "ss.dpl")
_STUB, _SIZE = 1 << 38, 0x6000
_IRETQ = bytes((0x48, 0xCF))


def start(guest: Processor, plan: Vcpu) -> None:
    """Boot the vCPU. Raises Unpredicted where the model cannot start it so."""
    tables = guest.machine.tables
    regs = x86_64.boot(plan.mode, None if tables is None else tables.at)
    wanted = dict(regs)
    for name, value in plan.regs.items():
        put(wanted, name, value)
    for name, value in wanted.items():
        if value != regs.get(name, 0) and not _startable(guest, name):
            raise Unpredicted(f"the model does not start a vCPU with another {name}")
    guest.cpl = wanted["ss.dpl"]
    if guest.cpl not in (0, _USER) or wanted["cs.dpl"] != guest.cpl:
        raise Unpredicted("the model starts a vCPU at CPL 0 or, with cs.dpl and ss.dpl 3, at CPL 3")
    if plan.mode == "real":
        wanted.setdefault("idt.base", 0)
        wanted.setdefault("idt.limit", 0xFFFF)
        guest.engine.reg_write(const.UC_X86_REG_CR0, _CR0_REAL)
    else:
        _protected(guest, plan.mode, wanted)
    guest.engine.reg_write(const.UC_X86_REG_IDTR, (0, wanted["idt.base"], wanted["idt.limit"], 0))
    guest.held.update(wanted)
    guest.engine.reg_write(const.UC_X86_REG_FPCW, 0x37F)
    guest.engine.reg_write(const.UC_X86_REG_MXCSR, 0x1F80)
    # With tables of its own the guest loads no selectors, and Unicorn cannot be given them without
    # their descriptors.
    for name, number in guest.SELECTORS.items() if not guest.own_gdt else ():
        guest.engine.reg_write(number, wanted[name])
    guest.write_wholes({name: value for name, value in wanted.items() if guest.writable(name)})


def _startable(guest: Processor, name: str) -> bool:
    if name in _ALWAYS or guest.is_general(name):
        return True
    return (guest.mode == "real" and name.endswith(".selector")) or (
        guest.mode == "long" and name in _LONG
    )


def _protected(guest: Processor, mode: str, wanted: Mapping[str, int]) -> None:
    engine = guest.engine
    own = guest.machine.tables is None
    if own and mode != "long":
        raise Unpredicted("the guest brings its own tables")
    engine.reg_write(const.UC_X86_REG_CR4, wanted["cr4"])
    if mode == "long":
        if own:
            for page in paging.tables(wanted.get("cr3", 0), guest.memory.read):
                guest.guard(page, paging.PAGE)
        engine.reg_write(const.UC_X86_REG_MSR, (EFER, wanted["efer"]))
        engine.reg_write(const.UC_X86_REG_CR3, wanted.get("cr3", 0))
    engine.reg_write(const.UC_X86_REG_CR0, wanted["cr0"])
    if guest.cpl == _USER:
        guest.passing = True
        _to_user(engine, wanted)
        guest.passing = False
        engine.reg_write(const.UC_X86_REG_CR3, wanted.get("cr3", 0))
    guest.own_gdt = own
    engine.reg_write(
        const.UC_X86_REG_GDTR, (0, wanted.get("gdt.base", 0), wanted.get("gdt.limit", 0), 0)
    )


def _to_user(engine: Any, wanted: Mapping[str, int]) -> None:
    """Go to CPL 3 by the one way that Unicorn has: an iretq, on tables and descriptors that are
    gone afterwards.
    """
    engine.mem_map(_STUB, _SIZE)
    code, pdpt, directory, gdt, stack = (_STUB + n * paging.PAGE for n in range(1, 6))
    index = _STUB >> 39 & 511, _STUB >> 30 & 511, _STUB >> 21 & 511
    engine.mem_write(_STUB + 8 * index[0], struct.pack("<Q", pdpt | 7))
    engine.mem_write(pdpt + 8 * index[1], struct.pack("<Q", directory | 7))
    engine.mem_write(directory + 8 * index[2], struct.pack("<Q", _STUB | 0xE7))
    cs, ss = wanted["cs.selector"] | _USER, wanted["ss.selector"] | _USER
    entries = bytearray(paging.PAGE)
    struct.pack_into("<Q", entries, cs & 0xFF8, 0x00AFFB000000FFFF)
    struct.pack_into("<Q", entries, ss & 0xFF8, 0x00CFF3000000FFFF)
    if cs & 0xFFF8 == ss & 0xFFF8 or (cs | ss) & 0xF004 or not cs & 0xFF8 or not ss & 0xFF8:
        raise Unpredicted(f"the model does not start a vCPU with the selectors {cs:#x} and {ss:#x}")
    engine.mem_write(gdt, bytes(entries))
    engine.mem_write(code, _IRETQ)
    engine.mem_write(stack, struct.pack("<5Q", code + 16, cs, 2, 0, ss))
    engine.reg_write(const.UC_X86_REG_GDTR, (0, gdt, paging.PAGE - 1, 0))
    engine.reg_write(const.UC_X86_REG_CR3, _STUB)
    engine.reg_write(const.UC_X86_REG_RSP, stack)
    engine.emu_start(code, code + 16)
    engine.mem_unmap(_STUB, _SIZE)


def put(values: dict[str, int], name: str, value: int) -> None:
    """Write a register or view into boot values."""
    row = x86_64.REGISTERS[name]
    values.setdefault(row.of or name, 0)
    mask = (1 << row.bits) - 1
    if not row.of or row.zeroes:
        values[row.of or name] = value & mask
    else:
        values[row.of] = (values[row.of] & ~(mask << row.shift)) | (value & mask) << row.shift
