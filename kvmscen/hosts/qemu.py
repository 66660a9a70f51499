"""The `qemu:BOARD[@KERNEL]` hosts: real KVM inside a Linux that QEMU boots in software, from a snapshot where there is one."""

from __future__ import annotations

from kvmscen.errors import HostError
from kvmscen.hosts.children import ChildHost, Json
from kvmscen.qemu import initramfs, snapshot, store, tools
from kvmscen.qemu.vm import Image, Saved, Vm


class QemuHost(ChildHost):
    """One machine a worker."""

    kind = "qemu"

    def __init__(self, name: str) -> None:
        if ":" not in name:
            raise HostError("qemu needs the machine: write qemu:ARCH or qemu:ARCH@KERNEL")
        super().__init__(name)
        self.wanted = store.parse(name)
        self._making: snapshot.Making | None = None
        self._saved: Saved | None = None
        self._hello: Json = {}

    def start(self) -> None:
        """Begin to boot, or to go on from the snapshot."""
        entry = store.find(self.wanted)
        if entry is None:
            raise HostError(f"host {self.name} is not prepared: kvmscen host prepare {self.wanted.entry}")
        qemu = tools.need(self.wanted.row)
        base = entry.file("base").read_bytes()
        dtb = entry.file("dtb") if self.wanted.row.dtb else None
        files = (entry.file("kernel"), (base, initramfs.agent()))
        self.image = Image(self.wanted.row, qemu.program, self.wanted.cpu, *files, qemu.environment, qemu.options, dtb)
        found = snapshot.find(entry, self.image)
        if found is not None:
            self._saved, self._hello = found
            super().start()
        elif self.wanted.row.snapshot:
            self._making = snapshot.Making(f"the machine of {self.name}", entry, self.image)
        else:
            super().start()

    def child(self) -> Vm:
        """One machine, not started yet."""
        return Vm(f"the machine of {self.name}", self.image, self._saved)

    def wait(self) -> None:
        """The facts: out of the snapshot, or from the machine itself."""
        if self._making is not None:
            self._hello = self._making.finish()
            self.take(self._hello)
            found = snapshot.find(self._making.entry, self.image)
            if found is None:
                raise HostError(f"host {self.name}: its snapshot has gone")
            self._saved = found[0]
            self._making = None
            super().start()
        if not self._hello:
            super().wait()
            return
        self.take(self._hello)

    def close(self) -> None:
        """End what no executor took."""
        if self._making is not None:
            self._making.close()
        super().close()
