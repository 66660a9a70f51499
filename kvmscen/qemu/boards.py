"""The machines that QEMU makes for each kind of guest KVM: command lines as rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Board:
    """One machine with KVM inside.

    `arch` is kvmscen's name, `debian` Debian's; `flavour` names its kernels, `package` what holds its QEMU on Debian.
    `line` is QEMU's command line but for memory, kernel and channel, `append` the kernel's. `channel` is the device that frames
    go over inside, `wire` the options that bring it out; `console` which serial line the kernel prints to. `modules` are loaded
    by the first process, with what they depend on, where the kernel does not have them built in. `memory` is in MiB.
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
    snapshot: bool = True
    dtb: str | None = None


# What makes a boot shorter, and nothing of KVM different.
_QUICK = (
    "quiet loglevel=4 panic=-1 nokaslr mitigations=off cryptomgr.notests raid=noautodetect audit=0 "
    "nowatchdog rcupdate.rcu_expedited=1 init_on_alloc=0 rdinit=/init"
)
# QEMU's standard input and output are the agent's.
_SERIAL = ("-chardev", "stdio,id=agent,signal=off", "-device")
_PORT = ("-device", "virtserialport,chardev=agent,name=kvmscen,nr=1")

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
        wire=(*_SERIAL, "virtio-serial-device", *_PORT),
        modules=("virtio_mmio", "virtio_console"),
        memory=256,
    ),
}
