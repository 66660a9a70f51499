"""riscv64: the ids of registers and the place of exits against the header, by the compiler for that
architecture.
"""

from __future__ import annotations

from cross_header import constants, needs

from kvmscen.sent.arch import riscv64 as table
from kvmscen.sent.arch.registers import base
from kvmscen.sent.header import exits, uapi
from kvmscen.sent.kvm import one_reg, riscv64

GCC = "riscv64-linux-gnu-gcc"
needs_gcc = needs(GCC)


def core(member: str) -> str:
    return (
        f"KVM_REG_RISCV | KVM_REG_SIZE_U64 | KVM_REG_RISCV_CORE | KVM_REG_RISCV_CORE_REG({member})"
    )


def expressions() -> dict[str, str]:
    """The header's own expression of each register's id."""
    out = {name: core(f"regs.{name}") for name in ("pc", *table.NAMES)}
    out["mode"] = core("mode")
    csr = "KVM_REG_RISCV | KVM_REG_SIZE_U64 | KVM_REG_RISCV_CSR | KVM_REG_RISCV_CSR_REG({})"
    # The header of Linux 6.1 ends before senvcfg.
    out |= {name: csr.format(name) for name in table.CSRS if name != "senvcfg"}
    double = "KVM_REG_RISCV | KVM_REG_SIZE_U{} | KVM_REG_RISCV_FP_D | KVM_REG_RISCV_FP_D_REG({})"
    out |= {name: double.format(64, f"f[{n}]") for n, name in enumerate(table.FLOATS)}
    return out | {"fcsr": double.format(32, "fcsr")}


@needs_gcc
def test_register_ids() -> None:
    texts = expressions()
    values = constants(GCC, *texts.values())
    assert {name: values[text] for name, text in texts.items()} == {
        n: i for n, i in riscv64.IDS.items() if n != "senvcfg"
    }
    assert riscv64.IDS["senvcfg"] == riscv64.IDS["scounteren"] + 1


@needs_gcc
def test_the_exits_of_riscv64() -> None:
    for name in ("riscv_sbi", "riscv_csr"):
        for field in exits.BY_NAME[name].fields:
            place = f"offsetof(struct kvm_run, {name}.{field.name})"
            assert constants(GCC, place)[place] == exits.UNION + field.offset, place


@needs_gcc
def test_guest_debug() -> None:
    (number,) = constants(GCC, "KVM_SET_GUEST_DEBUG").values()
    assert number == uapi.set_guest_debug("riscv64")
    assert constants(GCC, *uapi.GUESTDBG["riscv64"]) == uapi.GUESTDBG["riscv64"]


def test_every_register_has_an_id_of_its_size() -> None:
    wholes = {base(table.REGISTERS, name) for name in table.REGISTERS}
    assert wholes == set(riscv64.IDS)
    for name in wholes:
        assert one_reg.size_of(riscv64.IDS[name]) * 8 == table.REGISTERS[name].bits, name
    assert len(set(riscv64.IDS.values())) == len(riscv64.IDS)


def test_names_of_the_abi() -> None:
    # x0 is always 0 and no register of KVM's.
    assert [base(table.REGISTERS, f"x{n}") for n in (1, 2, 3, 4, 5, 8, 10, 17, 18, 28, 31)] == [
        *("ra", "sp", "gp", "tp", "t0", "s0", "a0", "a7", "s2", "t3", "t6")
    ]
    assert "x0" not in table.REGISTERS
    assert [base(table.REGISTERS, f"f{n}") for n in (0, 8, 10, 18, 28)] == [
        "ft0",
        "fs0",
        "fa0",
        "fs2",
        "ft8",
    ]
    assert base(table.REGISTERS, "fp") == "s0"
