"""What can go wrong on the machine with /dev/kvm; kvmscen.errors has the whole tree."""

from __future__ import annotations

import errno


class KvmscenError(Exception):
    """The root: everything that kvmscen raises on purpose."""


class HostError(KvmscenError):
    """A host cannot run here, or broke while it ran."""


# Of two names for one number Python knows the one that Linux does not return.
_SPELT = {getattr(errno, name): name for name in ("EOPNOTSUPP", "EDEADLK", "EAGAIN")}


class IoctlError(KvmscenError):
    """An ioctl failed. `ioctl` is its name in <linux/kvm.h>, `errno` the symbolic name of the
    errno.

    `write_memory` and `emulate` are the engine's own and fail in the same way; `reason` says more
    where there is more to say.
    """

    def __init__(self, ioctl: str, number: int, reason: str = "") -> None:
        self.ioctl = ioctl
        self.number = number
        self.reason = reason
        self.errno = _SPELT.get(number) or errno.errorcode.get(number, str(number))
        super().__init__(f"{ioctl} failed with {self.errno}")
