"""What <linux/kvm.h> of another architecture says, by the compiler for it."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache

import pytest


def needs(gcc: str) -> pytest.MarkDecorator:
    """Skips a test where the compiler is missing."""
    return pytest.mark.skipif(shutil.which(gcc) is None, reason=f"needs {gcc}")


@cache
def constants(gcc: str, *expressions: str) -> dict[str, int]:
    """What the compiler makes of constant expressions: they stand in its assembly text, so that
    nothing has to run.
    """
    lines = "".join(
        f'asm volatile("\\n->{n} %0" :: "i"((unsigned long)({text})));'
        for n, text in enumerate(expressions)
    )
    source = f"#include <stddef.h>\n#include <linux/kvm.h>\nvoid f(void) {{{lines}}}\n"
    done = subprocess.run(
        [gcc, "-S", "-O1", "-x", "c", "-", "-o", "-"],
        input=source,
        text=True,
        check=True,
        capture_output=True,
    )
    found = re.findall(r"^->(\d+) [#$]?(-?\d+)", done.stdout, re.M)
    assert len(found) == len(expressions)
    return {expressions[int(n)]: int(value) & (1 << 64) - 1 for n, value in found}
