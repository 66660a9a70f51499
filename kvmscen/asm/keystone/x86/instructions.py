"""x86: instructions in Intel and AT&T syntax. Branches and what has an address in it are sized and
filled in here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from kvmscen.asm.keystone import encoder
from kvmscen.asm.keystone.expressions import Expression
from kvmscen.asm.keystone.items import Fixed, Item
from kvmscen.asm.keystone.state import Front
from kvmscen.asm.keystone.x86.branches import Branch, FarJump, is_branch
from kvmscen.asm.keystone.x86.fixed import (
    PREFIXES,
    memory_group,
    order_prefixes,
    padding,
    put_prefix,
    segment_push,
    size_prefix,
    with_number,
    without_operands,
)
from kvmscen.asm.keystone.x86.forms import with_memory
from kvmscen.asm.keystone.x86.guards import STRING, drop_size, is_far_away, mixes_high_bytes
from kvmscen.asm.keystone.x86.operands import (
    IMM_MARK,
    SEGMENTS,
    WIDE_MARK,
    Operand,
    Operands,
    register_size,
    split,
    to_att,
    to_intel,
)
from kvmscen.asm.keystone.x86.patched import Patched, operand_size
from kvmscen.asm.keystone.x86.refused import check_numbers, complaint
from kvmscen.asm.keystone.x86.sizes import fits, without_operand_size
from kvmscen.asm.source import Statement, split_operands
from kvmscen.asm.taken_names import taken
from kvmscen.asm.values import Unencoded, Wrong, clip

_WIDE = ("movabs", "movabsq", "movabsl", "movabsw", "movabsb")
_BYTE_IMMEDIATE = frozenset(
    "shl shr sal sar rol ror rcl rcr shld shrd bt bts btr btc in out int enter ret".split()
)
_FAR = re.compile(r"[^\[\]\"']+:[^\[\]\"']+\Z")


# They choose among what is known here anyway.
_ACCEPTED = (
    ".arch",
    ".att_mnemonic",
    ".sse_check",
    ".operand_check",
    ".allow_index_reg",
    ".disallow_index_reg",
    ".noopt",
)
_MAX_NOPS = 1 << 16


class X86:
    """The x86 half of the front end. `mode` is 16, 32 or 64 bits and changes with `.code32` and its
    like.
    """

    align_is_power = False
    widths = {".word": 2, ".value": 2, ".slong": 4}

    def __init__(self, bits: int) -> None:
        self.mode = bits
        self._att = False

    def directive(self, front: Front, statement: Statement) -> bool:
        """`.code16`, `.code32`, `.code64`, `.intel_syntax`, `.att_syntax`."""
        word = statement.word
        if word in (".code16", ".code32", ".code64"):
            if statement.rest:
                raise Wrong(f"{word} takes no operand")
            self.mode = int(word[5:])
        elif word == ".intel_syntax":
            if statement.rest not in ("", "noprefix"):
                raise Wrong(".intel_syntax is supported as .intel_syntax noprefix")
            self._att = False
        elif word == ".att_syntax":
            if statement.rest not in ("", "prefix"):
                raise Wrong(".att_syntax is supported as .att_syntax prefix")
            self._att = True
        elif word == ".nops":
            self._nops(front, statement)
        else:
            return word in _ACCEPTED
        return True

    def _nops(self, front: Front, statement: Statement) -> None:
        """`.nops 16, 4`: so many bytes of instructions without effect, each no longer than that."""
        parts = split_operands(statement.rest)
        count, most = (
            front.absolute(part, "an operand of .nops") for part in (*parts, "11", "11")[:2]
        )
        if len(parts) not in (1, 2) or not 0 <= count <= _MAX_NOPS or not 0 <= most <= 11:
            raise Wrong(
                f".nops takes a size up to {_MAX_NOPS} and the longest single one, 11 at most: "
                f".nops 16, 4"
            )
        most = most or 11
        data = padding(most, 64) * (count // most) + (
            padding(count % most, 64) if count % most else b""
        )
        front.add(Fixed(statement, front.chunk, data))

    def taken(self, name: str) -> str | None:
        """Why no symbol can have this name: in Intel syntax some are GNU as's own."""
        return None if self._att else taken(name)

    def padding(self) -> Callable[[int], bytes]:
        """The instructions without effect that GNU as pads code with."""
        mode = self.mode
        return lambda count: padding(count, mode)

    def finish(self, front: Front) -> None:
        """Nothing to do: x86 has no literal pools."""

    def instruction(self, front: Front, statement: Statement) -> Item:
        """One instruction as an item. Raises Wrong."""
        word, rest = statement.word, statement.rest
        prefixes: list[int] = []
        while word in PREFIXES and rest and len(prefixes) < 4:
            prefixes.append(PREFIXES[word])
            word, *after = rest.split(None, 1)
            word, rest = word.lower(), after[0].strip() if after else ""
        if word in PREFIXES and not rest:
            return Fixed(statement, front.chunk, bytes([PREFIXES[word], *prefixes]))
        item = self._encode(front, statement, word, rest)
        for prefix in reversed(prefixes):
            if isinstance(item, Fixed):
                item.data = put_prefix(prefix, item.data)
                item.size += 1
            elif isinstance(item, Patched):
                item.add_prefix(prefix)
            else:
                raise Unencoded(f"a prefix is not supported here: {clip(statement.text)}")
        return item

    def _encode(self, front: Front, statement: Statement, word: str, rest: str) -> Item:
        chunk, mode = front.chunk, self.mode
        texts = split(rest)
        if not texts and (code := without_operands(word, mode)):
            return Fixed(statement, chunk, code)
        if self._att and mode == 64 and word in ("callq", "jmpq"):
            word = word[:-1]
        if word in ("ljmp", "lcall", "jmp", "call") and (far := self._far(front, texts, word)):
            return FarJump(statement, chunk, word, *far, mode)
        parse = Operands(lambda text: _resolve(front, text))
        branch = is_branch(word)
        operands = [parse.att(text, branch) if self._att else parse.intel(text) for text in texts]
        if branch and len(operands) == 1 and operands[0].kind == "imm":
            assert operands[0].value is not None
            return Branch(
                statement, chunk, word, operands[0].value, mode, operands[0].distance == "short"
            )
        return self._plain(front, statement, word, operands)

    def _far(
        self, front: Front, texts: list[str], word: str
    ) -> tuple[Expression, Expression] | None:
        if len(texts) == 1 and not self._att and _FAR.match(texts[0]):
            selector, _, offset = texts[0].partition(":")
            if register_size(selector.strip().lower()) is not None:
                return None
        elif len(texts) == 2 and word[0] == "l":
            selector, offset = texts
        else:
            return None
        clean = re.compile(r"\s*(?:\$|offset\s+(?:flat:)?)", re.IGNORECASE)
        return front.expression(clean.sub("", selector, 1)), front.expression(
            clean.sub("", offset, 1)
        )

    def _plain(
        self, front: Front, statement: Statement, word: str, operands: list[Operand]
    ) -> Item:
        mode = self.mode
        code: bytes | None = None
        if not self._att and not fits(word, operands, mode):
            raise complaint(statement, word, operands, self._att)
        if len(operands) == 1:
            only = operands[0]
            if only.kind == "reg":
                code = segment_push(word, only.register, mode)
            elif only.kind == "imm" and only.number is not None:
                code = with_number(word, only.number, only.size, mode)
            elif only.kind == "imm" and word == "push":
                code = size_prefix(only.size, mode) + b"\x68" + IMM_MARK.to_bytes(4, "little")
                code = code[:-2] if (only.size or mode) == 16 else code
            elif only.kind == "mem" and (group := memory_group(word, only, mode)):
                code = self._group(only, *group)
        if code is None:
            code = self._keystone(word, operands)
        if code is None:
            raise complaint(statement, word, operands, self._att)
        check_numbers(code, operands, statement)
        if all(operand.number is not None or operand.value is None for operand in operands):
            relative = any(
                o.base == "rip" and o.value and o.value.constant is None for o in operands
            )
            if not relative:
                return Fixed(statement, front.chunk, code)
        return Patched(statement, front.chunk, code, operands, word, mode)

    def _group(self, operand: Operand, opcode: bytes, number: int, size: int) -> bytes | None:
        """An instruction with one memory operand, made from another that Keystone encodes
        rightly.
        """
        mode = self.mode

        def encode(form: Operand) -> bytes | None:
            return encoder.encode(
                f"x{mode}", "invlpg " + to_intel(form, mode, IMM_MARK, sized=False)
            )

        code = with_memory(operand, mode, encode)
        if not code or b"\x0f\x01" not in code:
            return None
        at = code.index(b"\x0f\x01")
        prefix = code[:at] + size_prefix(size, self.mode)
        if self.mode == 64 and at and 0x40 <= code[at - 1] <= 0x4F:
            prefix = code[: at - 1] + size_prefix(size, self.mode) + code[at - 1 : at]
        modrm = code[at + 2] & 0xC7 | number << 3
        return prefix + opcode + bytes([modrm]) + code[at + 3 :]

    def _keystone(self, word: str, operands: list[Operand]) -> bytes | None:  # noqa: C901 frozen
        mode = self.mode
        if word == "mov" and mode == 64 and is_far_away(operands):
            word = "movabs"
        size = operand_size(operands)
        for operand in operands:
            if operand.register in ("rip", "eip", "riz", "eiz"):
                raise Wrong(f"{operand.register} cannot stand alone: {clip(operand.text)}")
            _narrow(operand, size)
        open_immediate = any(
            operand.kind == "imm" and operand.number is None for operand in operands
        )
        if word in _WIDE:
            marks = [WIDE_MARK]
        else:
            marks = [IMM_MARK, IMM_MARK & 0xFFFF, IMM_MARK & 0x7F] if open_immediate else [IMM_MARK]
            if open_immediate and word in _BYTE_IMMEDIATE:
                marks = marks[2:]
        if word == "int" and len(operands) == 1 and operands[0].number == 3:
            return b"\xcc"
        if word == "movsd" and not operands:
            return size_prefix(32, mode, True) + b"\xa5"
        if (
            STRING.match(word)
            and operands
            and not any(operand.register.startswith("xmm") for operand in operands)
        ):
            # With an operand that is not the implied one, Keystone ends the process.
            raise Unencoded(f"write {word} without operands, as in movsb, movsw, movsd or movsq")
        if mode == 64 and mixes_high_bytes(operands):
            raise Wrong("ah, bh, ch and dh cannot stand beside a 64-bit or a new register")
        if (
            word in ("bt", "bts", "btr", "btc")
            and operands
            and 127 < (operands[-1].number or 0) < 256
        ):
            operands[-1].number = (operands[-1].number or 0) - 256
        if (
            word == "mov"
            and mode != 16
            and len(operands) == 2
            and operands[-self._att].register in SEGMENTS
        ):
            drop_size(operands[1 - self._att])
        for mark in marks:
            if code := self._text(word, operands, mark):
                return without_operand_size(word, operands, order_prefixes(code), mode)
        return None

    def _text(self, word: str, operands: list[Operand], mark: int) -> bytes | None:
        """What Keystone makes of the instruction, with `mark` where a number is open."""
        mode, att = self.mode, self._att
        kinds = [operand.kind for operand in operands]
        if att and mode == 64 and word in ("mov", "movq") and kinds == ["imm", "reg"]:
            # Keystone's AT&T syntax has no short form of these.
            word, operands, att = "mov", operands[::-1], False

        def encode(form: Operand | None) -> bytes | None:
            forms = [
                form if form is not None and operand is memory else operand for operand in operands
            ]
            if att:
                text = f"{word}\t" + ", ".join(to_att(operand, mode, mark) for operand in forms)
                return encoder.encode(f"x{mode}-att", text.rstrip())
            text = f"{word} " + ", ".join(to_intel(operand, mode, mark) for operand in forms)
            return encoder.encode(f"x{mode}", text.rstrip())

        memory = next((operand for operand in operands if operand.kind == "mem"), None)
        return encode(None) if memory is None else with_memory(memory, mode, encode)


def _resolve(front: Front, text: str) -> tuple[Expression, int | None]:
    """An expression, and its value where it is made of numbers alone (or of symbols set to such
    before).
    """
    expression = front.expression(text.strip())
    if expression.constant is not None:
        return expression, expression.constant
    if (
        expression.names
        and all(name in front.constants for name in expression.names)
        and "." not in expression.text
    ):
        return expression, expression.value(front.scope.symbols, 0)
    return expression, None


def _narrow(operand: Operand, size: int) -> None:
    """Numbers as signed ones of the operand size, for which the short forms are found."""
    if operand.kind == "imm" and operand.number is not None and size in (8, 16, 32):
        value = operand.number
        if 1 << (size - 1) <= value < 1 << size and size > 8:
            operand.number = value - (1 << size)
