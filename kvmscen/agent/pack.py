"""The agent as it is sent: a zip of the modules that it needs, and the line of Python that takes it in.

Nothing is installed where it runs: the zip lives in a memfd. `-I` keeps a stranger's json.py out, `-S` leaves site out.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

# Everything that may be sent; it imports the standard library and each other only.
MODULES = ("__init__", "errors", "machine", "kvm/*", "arch/*", "agent/__init__", "agent/frames", "agent/serve", "agent/main")

# Read `LENGTH\n` and that many bytes from descriptor 0, put them into a memfd on sys.path, and serve.
BOOT = (
    "import os,sys\n"
    "n=b''\n"
    "while n[-1:]!=b'\\n':n+=os.read(0,1)\n"
    "n=int(n)\n"
    "f=os.memfd_create('kvmscen')\n"
    "while n>0:\n"
    " c=os.read(0,min(n,1<<20))\n"
    " if not c:sys.exit(1)\n"
    " n-=os.write(f,c)\n"
    "sys.path.insert(0,'/proc/self/fd/%d'%f)\n"
    "from kvmscen.agent.main import main\n"
    "main()"
)


@cache
def pack() -> bytes:
    """The zip's bytes: the same for the same sources."""
    root = Path(__file__).resolve().parent.parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for pattern in MODULES:
            for path in sorted(root.glob(pattern + ".py")):
                info = zipfile.ZipInfo(f"kvmscen/{path.relative_to(root).as_posix()}", (1980, 1, 1, 0, 0, 0))
                archive.writestr(info, path.read_bytes())
    return buffer.getvalue()


def digest() -> str:
    """The pack's sha256, in hex."""
    return hashlib.sha256(pack()).hexdigest()


def greeting() -> bytes:
    """What BOOT reads first."""
    return b"%d\n" % len(pack()) + pack()
