# ruff: noqa: E501 (lists as text)
"""Memory operands with every size word of GNU as's Intel syntax, in all three modes: Keystone makes
as's bytes, or refuses.

    python tests/asm/sizes.py                   26,000 statements: half a minute

What Keystone alone refuses goes to GNU as by itself. What GNU as refuses Keystone must refuse too:
it takes `inc qword ptr [edi]` for 32 bits, and says nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import reference  # noqa: E402 from beside this file

from kvmscen.asm import Source, assemble  # noqa: E402
from kvmscen.errors import ScenarioError  # noqa: E402

WORDS = (
    "",
    *"byte word dword fword qword mmword tbyte oword xmmword ymmword zmmword near far".split(),
)
PLACES = {64: "[rdi]", 32: "[edi]", 16: "[bx+si]"}
# What goes to GNU as by itself.
LEFT = re.compile(
    r"movd .*(qword|mmword)|(call|jmp) dword|nop (qword|mmword)|\w+ byte .*0x1234|movs?[sz]xd? "
    r"|v?cvt(pd2ps|pd2dq|si2ss) |vaesenc ymm|kmov[bdq] |"
    r"(ins|outs|lods|stos|scas|xlat) |rdpid|movdir|enqcmd|cmov|lds|les|mov\w+ ds|pop|cldemote|"
    r"(invlpg|prefetch\w*|clflush(opt)?|clwb|lea \w+,) (near|far|fword)"
)

_LOADS = """
movups movupd movaps movapd movdqu movdqa addps addpd subps mulps divps minps maxps sqrtps rcpps rsqrtps andps andnps orps xorps
addss addsd subss mulsd divss sqrtsd minss maxsd rcpss rsqrtss ucomiss ucomisd comiss comisd cvtss2sd cvtsd2ss cvtps2pd cvtpd2ps
cvtdq2ps cvtdq2pd cvttps2dq cvtps2dq cvtpd2dq cvttpd2dq movss movsd movq movd lddqu pxor por pand pandn paddb paddw paddd paddq psubb
psubw pcmpeqb pcmpeqd pcmpgtb pmullw pmaddwd pmuludq psadbw pavgb pminub pmaxsw packsswb packuswb punpcklbw punpckhdq punpcklqdq
unpcklps unpckhpd movlps movhps movlpd movhpd movsldup movshdup movddup haddps hsubpd addsubps pshufb phaddw pabsb pmulhrsw psignb
movntdqa pmovsxbw pmovzxbw pmovsxbd pmovzxbq pmovsxwd pmovsxdq pmulld pminsd pmaxud pcmpeqq pcmpgtq ptest phminposuw blendvps pblendvb
aesenc aesdec aesimc psllw pslld psllq psrlw psrad cvtsi2ss cvtsi2sd
"""
_STORES = (
    "movups movupd movaps movapd movdqu movdqa movss movsd movq movd movntps movntpd "
    "movntdq movlps movhps movlpd movhpd"
)
_WITH_NUMBER = """
shufps shufpd pshufd pshufhw pshuflw cmpps cmppd cmpss cmpsd palignr roundps roundsd blendps pblendw dpps mpsadbw pinsrb pinsrw pinsrd
pinsrq insertps pcmpistri pcmpestrm pclmulqdq aeskeygenassist
"""
_MMX = (
    "movq movd paddb pxor pand pcmpeqw psllw punpcklbw punpckhwd punpckldq pshufb cvtpi2ps "
    "pmuludq cvtps2pi cvttps2pi cvtpd2pi"
)
_ALONE = """
fld fst fstp fadd fsub fsubr fmul fdiv fdivr fcom fcomp fild fist fistp fisttp fiadd fisub fisubr fimul fidiv fidivr ficom ficomp fbld
fbstp fldcw fnstcw fstcw fnstsw fstsw fldenv fnstenv fstenv frstor fnsave fsave fxsave fxrstor xsave xrstor xsaveopt xsavec xsaves
ldmxcsr stmxcsr vldmxcsr vstmxcsr cmpxchg8b invlpg prefetchnta prefetcht0 prefetcht1 prefetcht2 prefetchw prefetch clflush clflushopt
clwb cldemote sgdt sidt lgdt lidt sldt str lldt ltr verr verw smsw lmsw vmptrld vmptrst vmclear vmxon push pop inc dec neg not mul imul
div idiv call jmp ljmp lcall sete setb setnz nop ins_dx lods stos scas xlat
"""
_LONG = "fxsave64 fxrstor64 xsave64 xrstor64 xsaveopt64 cmpxchg16b"
_BOTH_WAYS = "mov add or adc sbb and sub xor cmp test xchg xadd cmpxchg"
_TO_REGISTER = (
    "imul cmove bsf bsr lar lsl movzx movsx lea bound lds les lss lfs lgs movbe popcnt "
    "lzcnt tzcnt crc32"
)
_VECTOR = """
vmovups vmovaps vmovdqu vmovdqa vmovupd vlddqu vsqrtps vrcpps vcvtdq2ps vcvtdq2pd vcvtps2pd vcvtpd2ps vcvtpd2dq vbroadcastss
vbroadcastsd vbroadcastf128 vbroadcasti128 vpbroadcastb vpbroadcastw vpbroadcastd vpbroadcastq vptest vpabsb vpabsd vpmovsxbw vmovddup
vmovntdqa vmovd vmovq vmovss vmovsd vucomisd vcomiss
"""
_VECTOR_STORES = (
    "vmovups vmovaps vmovdqu vmovdqa vmovntps vmovntdq vmovss vmovsd vmovd vmovq vmovlps vmovhps"
)
_VECTOR_3 = """
vaddps vsubpd vmulps vdivsd vaddss vxorps vandps vpxor vpaddd vpand vpor vpcmpeqb vpshufb vpmulld vpmaxsd vpminsd vpsllw vpsllvd
vfmadd132ps vfmadd213sd vfmadd231ss vpermd vpermps vunpcklps vhaddps vmovlps vmovhps vcvtsi2ss vcvtsd2ss vcvtss2sd vaesenc vpminub
vandnps vmaxps vminsd vsqrtss
"""
_VECTOR_3_NUMBER = (
    "vshufps vpalignr vcmpps vcmpsd vcmpss vinsertf128 vinserti128 vperm2f128 "
    "vroundss vblendps vpblendw vpinsrb vpinsrw"
)
_VECTOR_2_NUMBER = "vpshufd vpermilps vroundps vpermq vpermpd vpcmpistri vaeskeygenassist"
_VECTOR_STORES_NUMBER = "vextractf128 vextracti128 vpextrb vpextrw vpextrd vextractps"
_MORE = """
mov ds, M|mov M, es|mov M, gs|arpl M, ax|movq M, mm1|movd M, mm1|movntq M, mm1|pshufw mm1, M, 1|pinsrw mm1, M, 1|palignr mm1, M, 1|
movmskps eax, M|movnti M, eax|shl M, 1|sar M, 4|rol M, cl|rcr M|bt M, 4|bts M, ecx|shld M, ecx, 4|shrd M, cx, cl|movbe M, ecx|
imul ecx, M, 10|vmovups zmm1, M|vmovaps M, zmm1|vmovdqu32 zmm1, M|vaddps zmm1, zmm2, M|kmovw k1, M|kmovq M, k1|andn eax, ecx, M|
bextr eax, M, ecx|rorx eax, M, 3|adcx eax, M|blsr eax, M|mulx eax, ecx, M|outs dx, M|movdiri M, eax|enqcmd eax, M|mov M, 5|mov M, 0x1234|
add M, 5|cmp M, 0x1234|test M, 5|xor M, -1|vmaskmovps xmm1, xmm2, M|vmaskmovps M, ymm1, ymm2|cvtss2si eax, M|cvttsd2si eax, M
"""
_MORE_LONG = (
    "movsxd rax, M|movsxd eax, M|movnti M, rax|cvtsd2si rax, M|crc32 rax, M|vmread M, "
    "rax|vmwrite rax, M|invpcid rax, M|invept rax, M"
)


def forms(mode: int) -> Iterator[str]:
    """Statements with M where the operand in memory goes."""
    shapes = [
        (_LOADS, "xmm1, M"),
        (_STORES, "M, xmm1"),
        (_WITH_NUMBER, "xmm2, M, 1"),
        (_MMX, "mm1, M"),
        (_ALONE, "M"),
    ]
    shapes.append(("pextrb pextrw pextrd pextrq extractps", "M, xmm2, 1"))
    for x in "xy":
        shapes += [
            (_VECTOR, f"{x}mm1, M"),
            (_VECTOR_STORES, f"M, {x}mm1"),
            (_VECTOR_3, f"{x}mm1, {x}mm2, M"),
        ]
        shapes += [
            (_VECTOR_3_NUMBER, f"{x}mm1, {x}mm2, M, 1"),
            (_VECTOR_2_NUMBER, f"{x}mm1, M, 1"),
            (_VECTOR_STORES_NUMBER, f"M, {x}mm1, 1"),
        ]
    for register in ("al", "cx", "edx", "rsi", "r9d")[: 5 if mode == 64 else 3]:
        shapes += [
            (_BOTH_WAYS, f"{register}, M"),
            (_BOTH_WAYS, f"M, {register}"),
            (_TO_REGISTER, f"{register}, M"),
        ]
    if mode == 64:
        shapes.append((_LONG, "M"))
    for words, operands in shapes:
        for word in words.split():
            yield f"{word} {operands}" if word != "ins_dx" else f"ins {operands}, dx"
    yield from (_MORE + ("|" + _MORE_LONG if mode == 64 else "")).replace("\n", "").split("|")


def statements(mode: int, part: int = 1) -> list[str]:
    """Every `part`-th form, with every size word."""
    out = []
    for form in list(forms(mode))[::part]:
        out += [
            re.sub(r"\bM\b", f"{word} ptr {PLACES[mode]}" if word else PLACES[mode], form)
            for word in WORDS
        ]
    return out


def compare(mode: int, part: int = 1) -> tuple[list[str], dict[str, int]]:
    """What differs, and the counts of what came out."""
    lines = statements(mode, part)
    wanted = reference.each(mode, lines)
    different: list[str] = []
    counts = {"same": 0, "both refuse": 0, "left to GNU as": 0}
    for line, theirs in zip(lines, wanted, strict=True):
        mine: bytes | str
        try:
            sections = assemble("x86_64", mode, Source("s", line), [], 0x1000, "keystone").sections
            mine = sections[0].data
        except ScenarioError as error:
            mine = error.problems[0].message
        if isinstance(mine, str) and theirs is None:
            counts["both refuse"] += 1
        elif isinstance(mine, bytes) and mine == theirs:
            counts["same"] += 1
        elif isinstance(mine, str) and LEFT.match(line):
            counts["left to GNU as"] += 1
        else:
            shown = mine if isinstance(mine, str) else mine.hex()
            different.append(
                f"{mode}: {line}: GNU as {'refuses' if theirs is None else theirs.hex()}, here "
                f"{shown}"
            )
    return different, counts


def main() -> None:
    wrong = 0
    for mode in PLACES:
        different, counts = compare(mode)
        print(
            mode,
            ", ".join(f"{count} {what}" for what, count in counts.items()),
            *different,
            sep="\n    ",
        )
        wrong += len(different)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
