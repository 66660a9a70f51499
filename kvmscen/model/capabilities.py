"""What KVM_CHECK_EXTENSION says on the KVM that the model predicts; without Unicorn, so that anyone
can ask.
"""

from __future__ import annotations

from collections.abc import Mapping

# Bits of a guest physical address on arm64: KVM's default, a VM of type 0.
IPA_BITS = 40

ARM64: Mapping[str, int] = {
    "KVM_CAP_USER_MEMORY": 1,
    "KVM_CAP_NR_MEMSLOTS": 32767,
    "KVM_CAP_SYNC_MMU": 1,
    "KVM_CAP_DESTROY_MEMORY_REGION_WORKS": 1,
    "KVM_CAP_ONE_REG": 1,
    "KVM_CAP_READONLY_MEM": 1,
    "KVM_CAP_ARM_PSCI": 1,
    "KVM_CAP_ARM_PSCI_0_2": 1,
    "KVM_CAP_ENABLE_CAP_VM": 1,
    "KVM_CAP_IMMEDIATE_EXIT": 1,
    "KVM_CAP_ARM_VM_IPA_SIZE": IPA_BITS,
    "KVM_CAP_ARM_NISV_TO_USER": 1,
}

X86_64: Mapping[str, int] = {
    "KVM_CAP_HLT": 1,
    "KVM_CAP_USER_MEMORY": 1,
    "KVM_CAP_NR_MEMSLOTS": 32764,
    "KVM_CAP_SYNC_MMU": 1,
    "KVM_CAP_DESTROY_MEMORY_REGION_WORKS": 1,
    "KVM_CAP_JOIN_MEMORY_REGIONS_WORKS": 1,
    "KVM_CAP_READONLY_MEM": 1,
    "KVM_CAP_ENABLE_CAP_VM": 1,
    "KVM_CAP_IMMEDIATE_EXIT": 1,
}

# Names of /proc/cpuinfo for what the model's CPU has and the rules know; conditions on `cpu` see
# them.
CPU: Mapping[str, tuple[str, ...]] = {
    "arm64": ("fp", "asimd", "crc32", "atomics", "lrcpc", "ilrcpc"),
    "x86_64": (),
}

CAPABILITIES = {"arm64": ARM64, "x86_64": X86_64}
