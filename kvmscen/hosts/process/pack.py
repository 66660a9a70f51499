"""The agent as it is sent: a zip of kvmscen/sent, and the line of Python that takes it in.

Nothing is installed where it runs: the zip lives in a memfd. `-I` keeps a stranger's json.py out,
`-S` leaves site out.
"""

from __future__ import annotations

import io
import marshal
import zipfile
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import kvmscen

_EPOCH = (1980, 1, 1, 0, 0, 0)

OLD = "kvmscen needs python3 3.9 or newer"
# Read `LENGTH\n` and that many bytes from descriptor 0, put them into a memfd on sys.path, and
# serve.
BOOT = (
    "import os,sys\n"
    f"if sys.version_info<(3,9):sys.exit('{OLD}, this is %d.%d'%sys.version_info[:2])\n"
    "n=b''\n"
    "while n[-1:]!=b'\\n':\n"
    " c=os.read(0,1)\n"
    " if not c:sys.exit(1)\n"
    " n+=c\n"
    "n=int(n)\n"
    "f=os.memfd_create('kvmscen')\n"
    "while n>0:\n"
    " c=os.read(0,min(n,1<<20))\n"
    " if not c:sys.exit(1)\n"
    " n-=os.write(f,c)\n"
    "sys.path.insert(0,'/proc/self/fd/%d'%f)\n"
    "from kvmscen.sent.agent.main import main\n"
    "main()\n"
    # Python's own end would wait for nobody, but takes down what a thread may still use.
    "os._exit(0)"
)


@cache
def pack(compiled: bool = False) -> bytes:
    """The zip's bytes: the same for the same sources.

    `compiled`: with this interpreter's bytecode beside them, which takes it half the time to start;
    any other finds that it is not its own and takes the source.
    """
    root = Path(kvmscen.__file__).resolve().parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in (root / "__init__.py", *sorted((root / "sent").rglob("*.py"))):
            name = f"kvmscen/{path.relative_to(root).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), path.read_bytes())
            if compiled:
                archive.writestr(zipfile.ZipInfo(name + "c", _EPOCH), _bytecode(path))
    return buffer.getvalue()


def _bytecode(path: Path) -> bytes:
    """A .pyc that is not held against its source (PEP 552); the code comes from __pycache__ where
    it is there.
    """
    code = SourceFileLoader(path.stem, str(path)).get_code(path.stem)
    return MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)


def digest() -> str:
    """The sha256 of the pack without bytecode, in hex."""
    import hashlib  # here, since every run imports this module and most need no digest

    return hashlib.sha256(pack()).hexdigest()


def greeting(compiled: bool = False) -> bytes:
    """What BOOT reads first."""
    return b"%d\n" % len(pack(compiled)) + pack(compiled)
