"""Parts of the corpus by both assemblers, and of the damaged sources; the whole: `python
tests/asm/corpus.py`, mutations.py.
"""

from __future__ import annotations

import corpus
import mutations
import pytest
import reference

from kvmscen.asm import Program

SAMPLES = list(corpus.samples(part=15))


@pytest.mark.parametrize(
    "kind", ["arm64", "x64", "x32", "x16", ":"], ids=["arm64", "x64", "x32", "x16", "scenarios"]
)
def test_both_assemblers_make_the_same(kind: str) -> None:
    pytest.importorskip("keystone")
    reference.tools("arm64")
    reference.tools("x86_64")
    chosen = [
        sample
        for sample in SAMPLES
        if (":" in sample.name if kind == ":" else sample.name.startswith(kind))
    ]
    assert len(chosen) >= 25
    found = [difference for sample in chosen for difference in corpus.compare(sample)]
    assert [difference for difference in found if not difference.reason] == []


def test_the_corpus_is_large_and_assembles() -> None:
    assert sum(count for _, _, _, count in corpus.KINDS.values()) >= 1500
    pytest.importorskip("keystone")
    drawn = [sample for sample in SAMPLES if " " not in sample.name]
    made = [corpus.made(sample, "keystone") for sample in drawn]
    assert sum(isinstance(program, Program) for program in made) > 0.95 * len(made)


def test_marks_change_no_byte() -> None:
    # What as makes of the bare text, against what it makes with the marks that tell lines.
    for sample in SAMPLES:
        if sample.bits != 64 or ":" in sample.name or " " in sample.name:
            continue
        reference.tools(sample.arch)
        program = corpus.made(sample, "gnu")
        assert isinstance(program, Program) or "=here - _start" in sample.text, program
        if not isinstance(program, Program):
            continue
        places = {section.name: section.gpa for section in program.sections}
        wanted = reference.link(sample.arch, sample.bits, sample.text, places)
        for section in program.sections:
            assert section.nobits or section.data == wanted[section.name], (
                sample.name,
                section.name,
            )


@pytest.mark.parametrize(("assembler", "count"), [("keystone", 300), ("gnu", 150)])
def test_damaged_sources_are_made_or_refused_at_a_line(assembler: str, count: int) -> None:
    if assembler == "keystone":
        pytest.importorskip("keystone")
    reference.tools("arm64")
    reference.tools("x86_64")
    outcomes = mutations.run(mutations.SEED, count, assembler)
    assert len(outcomes) == count
    assert [outcome for outcome in outcomes if outcome.what not in ("made", "refused")] == []
    assert {outcome.what for outcome in outcomes} == {"made", "refused"}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "ldr x0, []",
        "str x0, [",
        "1:\n.float 1f\n",
        ".ascii\nnop",
        ".print\nnop\n",
        ".rept\n",
        ".macro\n.endm",
        '.section "a b"\n.byte 1',
    ],
)
@pytest.mark.parametrize("assembler", ["keystone", "gnu"])
def test_what_damage_has_found(text: str, assembler: str) -> None:
    reference.tools("arm64")
    made = corpus.made(corpus.Sample("", "arm64", 64, text), assembler)
    assert isinstance(made, Program) or all(not message.startswith("0:") for message in made)
