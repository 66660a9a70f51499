"""Plain scalars as YAML 1.2's core schema reads them, and by name those that YAML 1.1 reads
differently.

A scenario's integers are `0|[1-9][0-9]*` or `0x...`, with sign. Whatever else some YAML reader
takes for a number or a date is refused, so that an editor, another tool and kvmscen never see three
different scenarios in one file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

Scalar = str | int | float | bool | None

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"([-+]?)(?:0x([0-9a-fA-F]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+")
# Everything below starts so; other text is text and costs one look.
_NUMERIC = re.compile(r"[-+]?\.?[0-9]|[-+]?\.(?:inf|nan)$", re.IGNORECASE)
_ZEROS = re.compile(r"[-+]?0[0-9]+")
_OCTAL = re.compile(r"[-+]?0[oO]([0-7]+)")
_BINARY = re.compile(r"[-+]?0[bB]([01_]+)")
_HEX = re.compile(r"[-+]?0[xX]([0-9a-fA-F_]+)")
_UNDERSCORED = re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9].*)?")
_EXPONENT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")
_SUFFIXED = re.compile(r"([0-9]+) ?([kKmMgG])(?:i?[bB])?")
# More digits than any register has bits.
_DIGITS_MAX = 100


class Float(float):
    """A number with a fraction, and as it was written. It is never an integer, not even
    `4096.0`.
    """

    text: str

    def is_integer(self) -> bool:
        return False


@lru_cache(maxsize=4096)
def resolve(text: str) -> tuple[Scalar, str | None]:
    """The value of a plain scalar, and what is wrong with it (then the value is the one most likely
    meant).
    """
    if text in _WORDS:
        return _WORDS[text], None
    if not _NUMERIC.match(text):
        return text, None
    if len(text) > _DIGITS_MAX:
        digits = text.replace("_", "").isalnum()
        return (
            (0, f"a number of {len(text)} digits fits in no register: write a shorter one")
            if digits
            else (text, None)
        )
    match = _INTEGER.fullmatch(text)
    if match:
        sign, hexadecimal, decimal = match.groups()
        number = int(hexadecimal, 16) if hexadecimal else int(decimal)
        return (-number if sign == "-" else number), None
    if _FLOAT.fullmatch(text):
        value = Float(text)
        value.text = text
        return value, None
    return _refused(text)


def _refused(text: str) -> tuple[Scalar, str | None]:
    sign = -1 if text[0] == "-" else 1
    minus = "-" if sign < 0 else ""
    digits = text.lstrip("+-")
    plain = digits.replace("_", "")
    if _ZEROS.fullmatch(text):
        decimal = int(plain)
        if set(plain) <= set("01234567"):
            octal = int(plain, 8)
            say = f"is {minus}{octal} in YAML 1.1 and {minus}{decimal} in YAML 1.2: "
            return sign * octal, f"`{text}` {say}write {minus}{octal:#x} or {minus}{decimal}"
        return (
            sign * decimal,
            f"`{text}` is text in YAML 1.1 and {decimal} in YAML 1.2: write {minus}{decimal}",
        )
    if match := _OCTAL.fullmatch(text):
        octal = int(match[1], 8)
        return (
            sign * octal,
            f"`{text}` is text in YAML 1.1 and {octal} in YAML 1.2: write {minus}{octal:#x}",
        )
    if (match := _BINARY.fullmatch(text)) and match[1].strip("_"):
        number = int(match[1].replace("_", ""), 2)
        return (
            sign * number,
            f"`{text}` is {number} in YAML 1.1 and text in YAML 1.2: write {minus}{number:#x}",
        )
    if (match := _HEX.fullmatch(text)) and match[1].strip("_"):
        right = minus + "0x" + match[1].replace("_", "")
        return int(right, 16), f"`{text}` is not a number to every YAML reader: write {right}"
    if _UNDERSCORED.fullmatch(text):
        return sign * int(
            plain
        ), f"`{text}` is {plain} in YAML 1.1 and text in YAML 1.2: write {minus}{int(plain)}"
    return _refused_others(text, sign, plain)


def _refused_others(text: str, sign: int, plain: str) -> tuple[Scalar, str | None]:
    if _SEXAGESIMAL.fullmatch(text):
        number = 0
        for part in plain.split(".")[0].split(":"):
            number = number * 60 + int(part)
        say = f"`{text}` is {sign * number} in YAML 1.1 and text in YAML 1.2: write {sign * number}"
        return sign * number, say + f', or "{text}" if text is meant'
    if _DATE.fullmatch(text):
        return text, f'`{text}` is a date in YAML 1.1 and text in YAML 1.2: write "{text}"'
    if text.lower().endswith((".inf", ".nan")):
        return 0, f"`{text}` is no number that a scenario can hold: write digits"
    if _EXPONENT.fullmatch(text):
        number_text = text.replace("_", "")
        number_float = float(number_text) if abs(float(number_text)) < 1e18 else 0.0
        right = str(int(number_float)) if number_float.is_integer() else repr(number_float)
        value: Scalar = int(number_float) if number_float.is_integer() else Float(number_float)
        if isinstance(value, Float):
            value.text = text
        return value, f"`{text}` is not how a number is written here: write {right}"
    return text, None


_LIKE_DIGITS = str.maketrans("oOlI", "0011")
_HEX_WORD = re.compile(r"0[xX]([0-9a-zA-Z_]*)")
_H_SUFFIX = re.compile(r"(?:0[xX])?([0-9][0-9a-fA-F]*)[hH]")
_PREFIXED = re.compile(r"(?:[$#]|&[hH])(0[xX])?([0-9a-fA-F]+)")
_C_SUFFIX = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)(?:[uUlL]{1,3})")
_SUM = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)\s*(<<|[-+*])\s*(0[xX][0-9a-fA-F]+|[0-9]+)")
_B_SUFFIX = re.compile(r"([01]+)[bB]")
_D_PREFIX = re.compile(r"0[dD]([0-9]+)")


def mistaken(text: str) -> str | None:
    """How a number that is written another way is written here; None where the text is no such
    thing.
    """
    text = text.strip().strip("'\"")
    if len(text) > 40:
        return None
    size = sized(text)
    if size:
        return f"write {size}"
    number, wrong = resolve(text)
    if isinstance(number, int) and not isinstance(number, bool):
        return wrong.rsplit(": ", 1)[-1] if wrong else f"write {text} without quotes"
    for form, right in _FORMS:
        if match := form.fullmatch(text):
            return right(match)
    joined = "".join(text.split())
    if joined != text and resolve(joined)[1] is None and isinstance(resolve(joined)[0], int):
        return f"write {joined} without the space"
    return None


def _hex_digits(digits: str) -> str:
    if not digits:
        return "there is no digit behind 0x: write 0x0 or another number"
    wrong = next((char for char in digits if char not in "0123456789abcdefABCDEF_"), "")
    right = digits.translate(_LIKE_DIGITS)
    if set(right) <= set("0123456789abcdefABCDEF"):
        return f"`{wrong}` is no hex digit: write 0x{right}"
    return f"`{wrong}` is no hex digit: write 0 to 9 and a to f behind 0x"


def _sum(left: str, sign: str, right: str) -> str | None:
    a, b = (int(part, 16) if part[:2] in ("0x", "0X") else int(part) for part in (left, right))
    if sign == "<<":
        return f"nothing is reckoned here: write {a << b:#x}" if b < 64 else None
    return (
        f"nothing is reckoned here: write "
        f"{a * b if sign == '*' else a + b if sign == '+' else a - b:#x}"
    )


# Numbers as they are written elsewhere, and what is said of one; the first that fits counts.
_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str | None]], ...] = (
    (_H_SUFFIX, lambda found: f"a hex number begins with 0x: write 0x{found[1]}"),
    (_C_SUFFIX, lambda found: f"write {found[1]}"),
    (_HEX_WORD, lambda found: _hex_digits(found[1])),
    (
        _PREFIXED,
        lambda found: f"write {'0x' if found[1] or found[0][0] in '$&' else ''}{found[2]}",
    ),
    (
        _B_SUFFIX,
        lambda found: f"a binary number is written in hex: write {int(found[1], 2):#x}",
    ),
    (_D_PREFIX, lambda found: f"write {int(found[1])}"),
    (_SUM, lambda found: _sum(*found.groups())),
    (
        re.compile("[xX][0-9a-fA-F]{3,}"),
        lambda found: f"a hex number begins with 0x: write 0{found[0].lower()}",
    ),
    (
        re.compile("([oO])[xX][0-9a-zA-Z_]*"),
        lambda found: f"it begins with the letter `{found[1]}`: write 0{found[0][1:]}",
    ),
)


def sized(text: str) -> str | None:
    """`64K` in bytes, as the number to write instead; None where the text is no such thing."""
    match = _SUFFIXED.fullmatch(text)
    if not match or len(match[1]) > 12:
        return None
    return hex(int(match[1]) << {"k": 10, "m": 20, "g": 30}[match[2].lower()])
