"""The machines that QEMU makes for each kind of guest KVM: command lines as rows."""

from __future__ import annotations

from typing import NamedTuple


class Board(NamedTuple):
    """One machine with KVM inside.

    `arch` is kvmscen's name, `debian` Debian's; `flavour` names its kernels, `package` what holds
    its QEMU on Debian. `line` is QEMU's command line but for memory, kernel and channel, `append`
    the kernel's. `channel` is the device that frames go over inside, `wire` the options that bring
    it out; `console` which serial line the kernel prints to. `modules` are loaded by the first
    process, with what they depend on, where the kernel does not have them built in. `memory` is in
    MiB. `magic` stands in its kernel images, at that offset (Documentation/arch/*/boot); `firmware`
    are packages that QEMU needs besides.
    """

    arch: str
    debian: str
    flavour: str
    binary: str
    package: str
    cpu: str
    line: tuple[str, ...]
    append: str
    channel: str
    wire: tuple[str, ...]
    modules: tuple[str, ...]
    memory: int
    magic: tuple[int, bytes] = (0x38, b"ARM\x64")
    snapshot: bool = True
    dtb: str | None = None
    firmware: tuple[str, ...] = ()


# What makes a boot shorter, and nothing of KVM different.
_QUICK = (
    "quiet loglevel=4 panic=-1 nokaslr mitigations=off cryptomgr.notests raid=noautodetect audit=0 "
    "nowatchdog rcupdate.rcu_expedited=1 init_on_alloc=0 rdinit=/init"
)
# QEMU's standard input and output are the agent's.
_SERIAL = ("-chardev", "stdio,id=agent,signal=off", "-device")
_PORT = ("-device", "virtserialport,chardev=agent,name=kvmscen,nr=1")

_CONSOLE = ("-serial", "chardev:console")
_MMIO = (*_SERIAL, "virtio-serial-device", *_PORT, *_CONSOLE)

BOARDS: dict[str, Board] = {
    "arm64": Board(
        arch="arm64",
        debian="arm64",
        flavour="cloud-arm64",
        binary="qemu-system-aarch64",
        package="qemu-system-arm",
        # Never max: QEMU 7.2 then ran the code of an earlier VM in most of them.
        cpu="neoverse-n1",
        line=("-machine", "virt,virtualization=on,gic-version=3", "-smp", "1"),
        append=f"console=ttyAMA0 lpj=250000 security=none {_QUICK}",
        channel="/dev/vport0p1",
        wire=_MMIO,
        modules=("virtio_mmio", "virtio_console"),
        memory=256,
    ),
    # The board that the founding question was asked on: four Cortex-A53, no GIC in the kernel, two
    # serial lines and nothing else.
    "raspi3b": Board(
        arch="arm64",
        debian="arm64",
        flavour="arm64",
        binary="qemu-system-aarch64",
        package="qemu-system-arm",
        cpu="",
        line=("-machine", "raspi3b", "-smp", "4"),
        append=f"console=ttyAMA0,115200 {_QUICK}",
        channel="/dev/ttyS1",
        wire=(*_CONSOLE, "-chardev", "stdio,id=agent,signal=off", "-serial", "chardev:agent"),
        modules=(),
        memory=1024,
        snapshot=False,
        dtb="bcm2837-rpi-3-b.dtb",
    ),
    "x86_64": Board(
        arch="x86_64",
        debian="amd64",
        flavour="cloud-amd64",
        binary="qemu-system-x86_64",
        package="qemu-system-x86",
        # With cx16 one boot in four panicked, in cmpxchg16b; with two processors two in three hung.
        cpu="max,+svm,-cx16",
        line=("-machine", "pc", "-smp", "1"),
        append=f"console=ttyS0 security=none {_QUICK}",
        channel="/dev/vport0p1",
        wire=(*_SERIAL, "virtio-serial-pci", *_PORT, *_CONSOLE),
        modules=("virtio_pci", "virtio_console", "kvm_amd"),
        memory=256,
        magic=(0x202, b"HdrS"),
        firmware=("seabios",),
    ),
    "riscv64": Board(
        arch="riscv64",
        debian="riscv64",
        flavour="riscv64",
        binary="qemu-system-riscv64",
        package="qemu-system-misc",
        cpu="rv64,h=true",
        line=("-machine", "virt", "-smp", "1"),
        append=f"console=ttyS0 {_QUICK}",
        channel="/dev/vport0p1",
        wire=_MMIO,
        modules=("virtio_mmio", "virtio_console", "kvm"),
        memory=256,
        magic=(0x38, b"RSC\x05"),
        firmware=("opensbi",),
    ),
}
