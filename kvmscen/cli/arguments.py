"""The options of the command line, and the variables that stand for them."""

from __future__ import annotations

import argparse
import os
import re

from kvmscen import __version__
from kvmscen.errors import UsageError
from kvmscen.sent.sandbox import MODES

ASSEMBLERS = ("keystone", "gnu")
EXIT = """exit status: 0 all that ran passed, 1 a mismatch, 2 a wrong scenario or wrong usage, 3 a
host or harness error, 4 nothing ran, 130 interrupted (143 by SIGTERM); of several, 3 goes
before 2 before 1"""

ENVIRONMENT = """environment: KVMSCEN_ON, KVMSCEN_K, KVMSCEN_CASE, KVMSCEN_J, KVMSCEN_REPORT,
KVMSCEN_RECORD, KVMSCEN_OBSERVED, KVMSCEN_QUIET, KVMSCEN_VERBOSE, KVMSCEN_ASSEMBLER,
KVMSCEN_SANDBOX, KVMSCEN_NO_CACHE, KVMSCEN_ALLOW_HOST_EFFECTS and, of measure,
KVMSCEN_ROUNDS, KVMSCEN_LOOP, KVMSCEN_BASE, KVMSCEN_SAVE, KVMSCEN_AGAINST stand for
options that are not given; KVMSCEN_SSH is the ssh client of ssh: hosts, KVMSCEN_DEBUG
shows tracebacks; also NO_COLOR, FORCE_COLOR, COLUMNS, TERM, GITHUB_ACTIONS,
XDG_CACHE_HOME, XDG_STATE_HOME, TMPDIR (README, "Environment")"""
_RUN_EXAMPLE = """example: run every scenario on the best host there is, then one case on the model
  kvmscen run scenarios/*.yaml
  kvmscen run scenarios/arm64-mmio.yaml --case nisv-to-user --on model --report json=report.json
"""
_CHECK_EXAMPLE = """example: look for errors in a folder of scenarios without running any
  kvmscen check scenarios/
"""
_SHOW_EXAMPLE = """example: where does everything lie, and what are the bytes?
  kvmscen show scenarios/arm64-mmio.yaml
"""
_MEASURE_EXAMPLE = """example: what each access costs here, in multiples of the cheapest
  kvmscen measure scenarios/x86_64-cost.yaml --on kvm --compare
  kvmscen measure scenarios/x86_64-cost.yaml --save today
  kvmscen measure scenarios/x86_64-cost.yaml --against today --report json=cost.json
"""
_HOSTS_EXAMPLE = """example:
  kvmscen hosts
"""
_CACHE_EXAMPLE = """example: how much is kept, then away with it
  kvmscen cache show
  kvmscen cache clear
"""
_HOST_EXAMPLE = """example: real KVM of arm64 on any machine
  kvmscen host prepare qemu:arm64@6.1
  kvmscen run scenarios/arm64-mmio.yaml --on qemu:arm64@6.1
"""


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="kvmscen",
        description="Run declarative KVM scenarios: memslots, sections, guest code and the exits "
        "that are expected.",
        epilog="\n".join((_RUN_EXAMPLE, EXIT, ENVIRONMENT)),
        formatter_class=raw,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kvmscen {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")

    _run(verbs)
    check = verbs.add_parser(
        "check",
        help="everything short of running",
        epilog=_CHECK_EXAMPLE,
        formatter_class=raw,
        allow_abbrev=False,
    )
    check.add_argument("paths", nargs="+", metavar="PATH", help="a scenario, or a folder of them")

    _preparing(check)

    show = verbs.add_parser(
        "show",
        help="the memory map, the symbols and the listing",
        epilog=_SHOW_EXAMPLE,
        formatter_class=raw,
        allow_abbrev=False,
    )
    show.add_argument("path", metavar="PATH", help="a scenario")
    show.add_argument("--case", metavar="NAME", help="only the case of this name")
    _preparing(show)
    show.add_argument("--json", action="store_true", help="as JSON")

    _measure(verbs)
    verbs.add_parser(
        "hosts",
        help="each host, whether it can run here, and why not",
        epilog=_HOSTS_EXAMPLE,
        formatter_class=raw,
    )
    _host_parser(verbs)
    _cache_parser(verbs)
    return parser


def _run(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = verbs.add_parser(
        "run",
        help="run scenarios and judge them",
        epilog="\n".join((_RUN_EXAMPLE, EXIT, ENVIRONMENT)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument("paths", nargs="+", metavar="PATH", help="a scenario, or a folder of them")
    run.add_argument(
        "--on",
        action="append",
        metavar="HOST",
        help="a host that `kvmscen hosts` shows; given several times, each case runs on each host "
        "(default: kvm where it fits, else a prepared qemu host, else model)",
    )
    run.add_argument(
        "-k", metavar="TEXT", help="only cases with this text in file, name, summary or tags"
    )
    run.add_argument("--case", action="append", metavar="NAME", help="only the case of this name")
    _preparing(run)
    _effects(run)
    run.add_argument(
        "-j", type=_count, metavar="N", help="how many run at once, 64 at most (default: the CPUs)"
    )
    run.add_argument(
        "--report",
        action="append",
        metavar="FORMAT[=FILE]",
        help="text, json, junit or ktap, to standard output or into a file",
    )
    run.add_argument(
        "--no-cache",
        action="store_true",
        help="prepare every file anew, and keep nothing of it for the next run",
    )
    run.add_argument("--record", metavar="DIR", help="keep every observation there, for replay:DIR")
    run.add_argument("--observed", action="store_true", help="print what happened as expect: YAML")
    how = run.add_mutually_exclusive_group()
    how.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="only what is not as it should be, and the summary",
    )
    how.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="every case with all its exits and source lines",
    )


def _preparing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--assembler",
        choices=ASSEMBLERS,
        help="what assembles every program, whatever the scenario says (default: keystone, and gnu "
        "for a program with an "
        "instruction that Keystone cannot encode)",
    )
    parser.add_argument(
        "--sandbox",
        choices=MODES,
        help="keep what reads scenario files from everything else: as far as this kernel can "
        "(auto, the default), or not at all "
        "without all of it (require, status 3); off does without (docs/security.md)",
    )


def _effects(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-host-effects",
        action="store_true",
        help="run cases too that enable a capability which changes the host beyond the VM "
        "(docs/security.md)",
    )


def _measure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    measure = verbs.add_parser(
        "measure",
        help="time the exits that scenarios name under measure:",
        epilog=_MEASURE_EXAMPLE + "\n" + EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    many = "spread the samples over so many runs of all cases, in turn (default: 10)"
    loop = "what stands around KVM_RUN (default: native, machine code; python where that cannot be)"
    measure.add_argument("paths", nargs="+", metavar="PATH", help="a scenario, or a folder of them")
    measure.add_argument(
        "--on",
        action="append",
        metavar="HOST",
        help="a host that runs KVM (default: kvm); may be given several times",
    )
    measure.add_argument(
        "-k", metavar="TEXT", help="only cases with this text in file, name, summary or tags"
    )
    measure.add_argument(
        "--case", action="append", metavar="NAME", help="only the case of this name"
    )
    _preparing(measure)
    _effects(measure)
    measure.add_argument("--rounds", type=_count, metavar="N", help=many)
    measure.add_argument("--loop", choices=("native", "python"), help=loop)
    measure.add_argument(
        "--compare",
        action="store_true",
        help="all kinds side by side, in multiples of the cheapest, with user space",
    )
    measure.add_argument("--base", metavar="NAME", help="as --compare, in multiples of this kind")
    measure.add_argument(
        "--save", metavar="NAME", help="keep the figures as a baseline of this name"
    )
    measure.add_argument(
        "--against",
        metavar="NAME",
        help="hold the figures against a baseline: a change beyond the noise is status 1",
    )
    measure.add_argument("-q", "--quiet", action="store_true", help="no word of how far it is")
    measure.add_argument(
        "--report",
        action="append",
        metavar="FORMAT[=FILE]",
        help="as for run, and svg, a picture; to standard output or into a file. json has the "
        "figures",
    )


def _cache_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    cache = verbs.add_parser(
        "cache",
        help="what run keeps of the files that it prepared",
        epilog=_CACHE_EXAMPLE,
        formatter_class=raw,
        allow_abbrev=False,
    )
    cache.add_argument(
        "what", choices=("show", "clear"), help="where it is and what it takes; or remove it"
    )


def _host_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    host = verbs.add_parser(
        "host", help="prepare machines that QEMU boots", epilog=_HOST_EXAMPLE, formatter_class=raw
    )
    whats = host.add_subparsers(dest="what", metavar="WHAT", title="what", required=True)
    prepare = whats.add_parser(
        "prepare",
        help="get what a qemu host needs, boot it once",
        epilog=_HOST_EXAMPLE,
        formatter_class=raw,
        allow_abbrev=False,
    )
    prepare.add_argument(
        "names", nargs="+", metavar="HOST", help="qemu:ARCH, qemu:ARCH@KERNEL or qemu:raspi3b"
    )
    prepare.add_argument("--kernel", metavar="IMAGE", help="boot this kernel, not one of Debian's")
    prepare.add_argument("--modules", metavar="DIR", help="where the modules of that kernel lie")
    prepare.add_argument(
        "--rootfs", metavar="DIR", help="the root file system: a folder with usr/bin/python3 in it"
    )
    whats.add_parser(
        "list", help="the prepared hosts, and how much disk they take", allow_abbrev=False
    )
    remove = whats.add_parser("remove", help="remove prepared hosts", allow_abbrev=False)
    remove.add_argument(
        "names", nargs="*", metavar="HOST", help="a host that `kvmscen host list` shows"
    )
    remove.add_argument("--all", action="store_true", help="all of them, and what was downloaded")


_FLAGS = ("observed", "quiet", "verbose", "no_cache")


def environment(arguments: argparse.Namespace) -> None:
    """KVMSCEN_<NAME> stands in for an option of `run` or `measure` that is not given; several
    values are separated by blanks.
    """
    for name in (
        "on",
        "k",
        "case",
        "j",
        "report",
        "record",
        *_FLAGS,
        "rounds",
        "loop",
        "base",
        "save",
        "against",
    ):
        value = os.environ.get(f"KVMSCEN_{name.upper()}")
        if not value or getattr(arguments, name, True):
            continue
        if name in ("j", "rounds"):
            try:
                setattr(arguments, name, _count(value))
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"KVMSCEN_{name.upper()}: {error}") from None
        elif name == "loop" and value not in ("native", "python"):
            raise UsageError(f"KVMSCEN_LOOP: {value!r} is no loop: write native or python")
        elif name in _FLAGS:
            setattr(arguments, name, value.lower() not in ("0", "no", "false"))
        else:
            setattr(arguments, name, value.split() if name in ("on", "case", "report") else value)


def _count(text: str) -> int:
    # `²` is a digit to Python, and no number; `٣` is a number, and no digit to people.
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")
    return int(text)
