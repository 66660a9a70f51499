"""The `qemu:BOARD[@KERNEL]` hosts: real KVM inside a Linux that QEMU boots in software, from a
snapshot where there is one.
"""

from __future__ import annotations

from kvmscen.errors import HostError
from kvmscen.hosts.process.child import Child, ChildError, Json
from kvmscen.hosts.process.children import ChildHost
from kvmscen.hosts.qemu import first_guest, initramfs, snapshot, store, tools, vm
from kvmscen.hosts.qemu.boards import BOARDS
from kvmscen.hosts.qemu.vm import Image, QemuMachine, Saved


class QemuHost(ChildHost):
    """One machine a worker. `eager`: it is started before it is known whether a case needs it."""

    kind = "qemu"
    # Booting takes seconds; on a machine that is busy with other things it may take many.
    seconds = 120.0

    def __init__(self, name: str, eager: bool = True) -> None:
        if ":" not in name:
            raise HostError("qemu needs the machine: write qemu:ARCH or qemu:ARCH@KERNEL")
        super().__init__(name)
        self.wanted = store.parse(name)
        self.archs = (BOARDS[self.wanted.board].arch,)
        self.eager = eager
        self._making: snapshot.Making | None = None
        self._saved: Saved | None = None
        self._hello: Json = {}

    def start(self) -> None:
        """Begin to boot, or to go on from the snapshot."""
        entry = store.find(self.wanted)
        if entry is None:
            raise HostError(
                f"host {self.name} is not prepared: kvmscen host prepare {self.wanted.entry}"
            )
        entry = store.renewed(entry)
        self.image = image(entry, self.wanted.cpu)
        saved = snapshot.find(entry, self.image)
        if saved is not None:
            self._saved, self._hello = saved
            if self.eager:
                super().start()
        elif snapshot.wanted(entry.board):
            self._making = snapshot.Making(f"the machine of {self.name}", entry, self.image)
        else:
            super().start()

    def child(self) -> QemuMachine:
        """One machine, not started yet."""
        return QemuMachine(f"the machine of {self.name}", self.image, self._saved)

    def wait(self) -> None:
        """The facts: out of the snapshot, or from the machine itself."""
        if self._making is not None:
            making, self._making = self._making, None
            try:
                self._hello = making.finish()
            except ChildError as error:
                raise HostError(self.explain(error)) from None
            self.take(self._hello)
            saved = snapshot.find(making.entry, self.image)
            self._saved = saved[0] if saved is not None else None
            if self.eager:
                super().start()
        if self._hello:
            self.take(self._hello)
        else:
            super().wait()

    def first(self, child: Child) -> None:
        """A guest that is thrown away, where the machine goes on from a snapshot."""
        if self._saved is not None:
            guest = first_guest.machine(self.image.board.arch).seal("the first guest")
            # Whatever becomes of it, the real guests will tell.
            child.ask('"machine":' + guest.text, first_guest.SECONDS)

    def explain(self, error: ChildError) -> str:
        """The message for a machine that broke, with the end of its console."""
        return vm.why(error, self.name)

    def close(self) -> None:
        """End the machine that was started and that no executor took."""
        if self._making is not None:
            self._making.close()
        super().close()


def image(entry: store.Entry, cpu: str = "") -> Image:
    """The files that QEMU boots of a prepared machine, with the agent as it is now. Raises
    HostError without a QEMU.
    """
    board = entry.board
    qemu = tools.need(board)
    return Image(
        board,
        qemu.program,
        cpu,
        entry.file("kernel"),
        (entry.file("base").read_bytes(), initramfs.agent()),
        qemu.environment,
        qemu.options,
        entry.file("dtb") if board.dtb else None,
        entry.manifest["memory"],
    )


def prepared() -> list[QemuHost]:
    """Of each architecture the newest machine that is prepared, for cases that no host was named
    for.
    """
    saved: dict[str, store.Entry] = {}
    for entry in store.entries():
        if entry.manifest["board"] == entry.board.arch and entry.manifest["series"]:
            # They are sorted by name, so the last is the newest.
            saved[entry.board.arch] = entry
    return [QemuHost(entry.name, eager=False) for entry in saved.values()]
