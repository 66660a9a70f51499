"""What is said of a key, an exit, an action or a member that does not exist: what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvmscen.load import names, other_names
from kvmscen.load.document import Document
from kvmscen.load.names import shorten
from kvmscen.sent.header import exits


def meant(word: str, known: Iterable[str]) -> str:
    """`did you mean` with the closest name, or all of them where they are few."""
    choices = list(known)
    close = names.closest(word, choices)
    if close:
        return f"did you mean `{close}`"
    return f"write {names.either(choices)}" if len(choices) <= 40 else "no known name is like it"


def unknown_top(key: str, shown: str, known: list[str], where: str) -> str:
    """What to say of a key that neither a scenario nor a case has; `where`: top or case."""
    if key in names.LATER_TOP:
        return f"not yet: the key `{key}`"
    if where == "case" and key == "cases":
        return "a case has no cases of its own: write them side by side"
    return (
        f"`{shown}` is not a key of a {'scenario' if where == 'top' else 'case'}: "
        f"{meant(key, known)}"
    )


def unknown_action(key: str) -> str:
    """What to say of a name that is no action."""
    message = other_names.action(key, names.LATER_ACTIONS, names.ACTIONS)
    if message:
        return message
    close = names.closest(key, names.ACTIONS)
    return f"`{shorten(key)}` is no action: " + (
        f"did you mean `{close}`" if close else f"write {names.either(names.ACTIONS)}"
    )


def unknown_exit(key: str, what: str, known: Iterable[str]) -> str:
    """What to say of a key of a step that is none."""
    if key in names.LATER_STEP:
        return f"not yet: the key `{key}`"
    row = exits.BY_NAME.get(key)
    if key == "memory_fault":
        return (
            "`memory_fault` comes with a failing KVM_RUN: write `error: {errno: EFAULT, "
            "memory_fault: {...}}`"
        )
    if row is not None:
        return f"`{key}` is an exit of {names.either(row.archs)} only: not yet"
    close = names.closest(key, known)
    say = (
        f"did you mean `{close}`"
        if close
        else "an exit is named as its KVM_EXIT_ without the prefix, in lower case"
    )
    return f"`{shorten(key)}` is {what}: {say}"


def unknown_member(key: str, name: str, arch: str | None, known: list[str]) -> str:
    """What to say of a member that an exit does not have."""
    if key in names.BESIDE:
        return f"write `{key}` beside `{name}`, not inside it"
    if key in names.LATER_STEP:
        return f"not yet: the key `{key}`"
    members = known if arch is None or name == "error" else list(names.members(name, arch))
    if not members:
        return f"`{shorten(key)}` is no member of `{name}`: it has none"
    return f"`{shorten(key)}` is no member of `{name}`: {meant(key, members)}"


def after_program(doc: Document, key: str, held: Any) -> bool:
    """Whether a key stands where the next line of the program may have been meant."""
    keys = list(held)
    before = keys[keys.index(key) - 1] if keys.index(key) else ""
    block = before == "asm" and doc.styles.get(held.marks["asm"][2:]) == "|"
    return block and (held[key] is None or isinstance(held[key], str))
