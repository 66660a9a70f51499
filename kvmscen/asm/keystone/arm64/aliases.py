"""`count .req x7`: names that a program gives to registers."""

from __future__ import annotations

import re

from kvmscen.asm.values import Wrong, clip

_ALIAS = re.compile(r"([A-Za-z_]\w*)\s+\.req\s+([\w.]+)\s*\Z", re.ASCII | re.IGNORECASE)
_REGISTER = re.compile(r"(?:[wxbhsdqvzp]\d{1,2}|[wx]zr|w?sp|lr|fp)(?:\.\w+)?\Z", re.IGNORECASE)
_WORD = re.compile(r"(?<![\w.$#:=])[A-Za-z_]\w*(?![\w$])", re.ASCII)


class Aliases:
    """The names that hold at a place of the program."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def define(self, text: str) -> bool:
        """Take in a statement; whether it was a `.req`. Raises Wrong."""
        match = _ALIAS.match(text)
        if not match:
            return False
        name, register = match.groups()
        register = self._names.get(register, register)
        if not _REGISTER.match(register):
            raise Wrong(f"{clip(register)} is no register: {clip(name)} .req x0")
        # GNU as knows it in both cases, too.
        self._names.update(dict.fromkeys((name, name.lower(), name.upper()), register))
        return True

    def forget(self, name: str) -> None:
        """`.unreq`."""
        self._names = {
            key: reg for key, reg in self._names.items() if key.lower() != name.strip().lower()
        }

    def resolve(self, operands: str) -> str:
        """Operands with the registers in place of the names."""
        if not self._names or '"' in operands:
            return operands
        return _WORD.sub(lambda word: self._names.get(word.group(), word.group()), operands)
