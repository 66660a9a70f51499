"""Statements to items: labels, assignments and directives; instructions go to the architecture."""

from __future__ import annotations

import re

from kvmscen.asm.keystone.directives import directive
from kvmscen.asm.keystone.expand import Expander, Wronged
from kvmscen.asm.keystone.items import Broken, Space
from kvmscen.asm.keystone.state import Front
from kvmscen.asm.source import Statement
from kvmscen.asm.values import Source, Unencoded, Wrong, clip

_ASSIGN = re.compile(r"([A-Za-z_.$][\w.$]*)\s*==?(?!=)\s*(.*)", re.ASCII | re.DOTALL)


def read(front: Front, source: Source, arch: str) -> None:
    """Read all of the source. A statement that is wrong becomes a Broken item."""
    for statement in Expander(source, arch, front).statements():
        if isinstance(statement, Wronged):
            front.add(Broken(statement.statement, front.chunk, statement.wrong))
            continue
        try:
            _statement(front, statement)
        except Wrong as wrong:
            front.add(Broken(statement, front.chunk, wrong))
    front.finish()


def _statement(front: Front, statement: Statement) -> None:
    if statement.label:
        front.label(statement)
        return
    word = statement.word
    if "=" in statement.text and (assign := _ASSIGN.match(statement.text)):
        name, value = assign.groups()
        if name == ".":
            front.add(Space(statement, front.chunk, front.expression(value), org=True))
        else:
            front.assign(statement, name, value)
    elif word[0] != ".":
        front.add(front.machine.instruction(front, statement))
    elif not front.machine.directive(front, statement) and not directive(front, statement):
        raise Unencoded(f"unknown directive {clip(word)}")
