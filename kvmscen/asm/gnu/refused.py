"""Why GNU as refuses statements: for those that the other assembler refuses and has no reason
for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kvmscen.asm.gnu import immediates, messages, program, targets, text, tools
from kvmscen.asm.values import Source, Wrong
from kvmscen.disk import scratch

# What as repeats of the statement, which the message has already.
_STATEMENT = re.compile(r" -- `.*'\Z|: `.*'\Z")
_MEANT = re.compile(r"program\.s:(\d+): Info:\s+did you mean this\?\n[^\n]*?: Info:\s+([^\n]+)")

Spot = tuple[str, int, int]


def reasons(arch: str, bits: int, source: Source) -> Mapping[Spot, str] | None:
    """What as says of the statements that it refuses, by their places; empty where it takes all of
    them.

    None where it did not get to the statements, or is not installed.
    """
    toolchain = targets.find(arch)
    if toolchain is None:
        return None
    statements = text.statements(source, arch)
    report = messages.Report(source, statements)
    try:
        for statement in statements[: program.MAX_STATEMENTS + 1]:
            text.check(statement)
    except Wrong:
        return None
    if len(statements) > program.MAX_STATEMENTS:
        return None
    for room in scratch.rooms():
        try:
            with scratch.folder(room) as folder:
                as_run = program.AsRun(arch, toolchain, bits, folder, report)
                ran, rendered = as_run.run(
                    immediates.provisional(statements) if arch == "arm64" else {}
                )
        except scratch.Full:
            continue
        return None if ran.why else _read(ran, rendered, toolchain, report)
    return None


def _read(
    ran: tools.Ran, rendered: text.Text, toolchain: targets.Tools, report: messages.Report
) -> Mapping[Spot, str] | None:
    complaints = list(messages.of_assembler(ran.messages))
    # Of a program that may have read a file nothing is told: it might tell of what is in the file.
    unsure = not tools.confined_from_files(toolchain.assembler) and text.composed(report.statements)
    if unsure or any(complaint.foreign for complaint in complaints):
        return None
    meant = {int(line): " ".join(other.split()) for line, other in _MEANT.findall(ran.messages)}
    out: dict[Spot, str] = {}
    for complaint in complaints:
        inside, used = rendered.statement(complaint.line), rendered.statement(complaint.used)
        if inside is None or text.is_mark(complaint.text):
            continue
        # As the other assembler tells it: at the use, unless the macro stands beside the program.
        at = inside if used is None or report.statements[inside].spot is not None else used
        reason = messages.quoted(_STATEMENT.sub("", complaint.text))
        if complaint.line in meant:
            reason += f"; did you mean `{messages.shorten(meant[complaint.line])}`?"
        out.setdefault(report.spot(at), reason)
    return out if out or not ran.status else None
