"""arm64: the ids of registers and the numbers of ioctls against the header, by the compiler for
that architecture.
"""

from __future__ import annotations

from cross_header import constants, needs

from kvmscen.sent.arch import arm64 as table
from kvmscen.sent.arch.registers import base
from kvmscen.sent.header import uapi
from kvmscen.sent.kvm import arm64, one_reg

GCC = "aarch64-linux-gnu-gcc"
needs_gcc = needs(GCC)
OWN = (
    "KVM_GET_ONE_REG",
    "KVM_SET_ONE_REG",
    "KVM_ARM_VCPU_INIT",
    "KVM_ARM_PREFERRED_TARGET",
    "KVM_ARM_VCPU_FINALIZE",
)


def core(size: int, member: str) -> str:
    return (
        f"KVM_REG_ARM64 | KVM_REG_SIZE_U{size} | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG({member})"
    )


def expressions() -> dict[str, str]:
    """The header's own expression of each register's id."""
    out = {f"x{n}": core(64, f"regs.regs[{n}]") for n in range(31)}
    out |= {
        "sp_el0": core(64, "regs.sp"),
        "pc": core(64, "regs.pc"),
        "pstate": core(64, "regs.pstate"),
    }
    out |= {
        name: "ARM64_SYS_REG({}, {}, {}, {}, {})".format(*code)
        for name, code in table.SYSTEM.items()
    }
    out |= {
        "sp_el1": core(64, "sp_el1"),
        "elr_el1": core(64, "elr_el1"),
        "spsr_el1": core(64, "spsr[KVM_SPSR_EL1]"),
    }
    out |= {f"v{n}": core(128, f"fp_regs.vregs[{n}]") for n in range(32)}
    return out | {"fpsr": core(32, "fp_regs.fpsr"), "fpcr": core(32, "fp_regs.fpcr")}


@needs_gcc
def test_register_ids() -> None:
    texts = expressions()
    values = constants(GCC, *texts.values())
    assert {name: values[text] for name, text in texts.items()} == arm64.IDS


@needs_gcc
def test_sve_register_ids() -> None:
    values = constants(GCC, *(f"KVM_REG_ARM64_SVE_ZREG({n}, 0)" for n in range(32)))
    assert [arm64.SVE_IDS[f"v{n}"] for n in range(32)] == list(values.values())
    assert {name for name in arm64.IDS if arm64.IDS[name] != arm64.SVE_IDS[name]} == {
        f"v{n}" for n in range(32)
    }


@needs_gcc
def test_ioctl_numbers() -> None:
    assert {name: uapi.IOCTLS[name] for name in OWN} == constants(GCC, *OWN)
    assert constants(GCC, "sizeof(struct kvm_vcpu_init)") == {
        "sizeof(struct kvm_vcpu_init)": uapi.VCPU_INIT_ARM
    }


@needs_gcc
def test_guest_debug() -> None:
    (number,) = constants(GCC, "KVM_SET_GUEST_DEBUG").values()
    assert number == uapi.set_guest_debug("arm64")
    places = {
        name: f"offsetof(struct kvm_guest_debug_arch, {name})"
        for name in uapi.GUEST_DEBUG["arm64"][1]
    }
    values = constants(GCC, *places.values())
    assert {name: values[text] for name, text in places.items()} == {
        name: offset for name, (offset, _) in uapi.GUEST_DEBUG["arm64"][1].items()
    }
    assert constants(GCC, *uapi.GUESTDBG["arm64"]) == uapi.GUESTDBG["arm64"]


@needs_gcc
def test_feature_bits() -> None:
    # The header of Linux 6.1 ends with the seventh.
    known = [name for name in table.FEATURES if not name.startswith("has_el2")]
    values = constants(GCC, *(f"KVM_ARM_VCPU_{name.upper()}" for name in known))
    assert [table.FEATURE_BITS[name] for name in known] == list(values.values())


def test_every_register_has_an_id_of_its_size() -> None:
    wholes = {base(table.REGISTERS, name) for name in table.REGISTERS}
    assert wholes == set(arm64.IDS)
    for name in wholes:
        assert one_reg.size_of(arm64.IDS[name]) * 8 == table.REGISTERS[name].bits, name
    assert len(set(arm64.IDS.values())) == len(arm64.IDS)
