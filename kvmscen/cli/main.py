"""The entry point: what every verb has in common, what is printed when one breaks, and the exit
status.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from kvmscen.cli import signals
from kvmscen.cli.arguments import ASSEMBLERS, environment, parser
from kvmscen.cli.standard import OutputError, standard
from kvmscen.cli.streams import install
from kvmscen.engine import unexpected
from kvmscen.errors import HostError, UsageError
from kvmscen.sent.sandbox import MODES

# Each is a module of kvmscen.cli with a function of the same name, which is imported when it is
# asked for.
VERBS = ("run", "check", "show", "hosts", "measure", "host", "cache")


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point: parse, do the verb, exit with its status."""
    try:
        signals.install()
        standard()
        install()
        status = _status(sys.argv[1:] if argv is None else argv)
        status = signals.status() or status
        signals.over()
    except KeyboardInterrupt:
        signals.over()
        status = signals.status() or 130
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, OutputError, ValueError):
            # ValueError: a signal came while the stream was being put in place.
            status = status or 3
    # Worker threads may still wait for children that are gone.
    os._exit(status)


def _status(argv: Sequence[str]) -> int:
    try:
        status = _main(argv)
        sys.stdout.flush()
        return status
    except (UsageError, HostError) as error:
        _say(f"kvmscen: {error}")
        return 2 if isinstance(error, UsageError) else 3
    except BrokenPipeError:
        # Whoever read us has gone.
        return 141
    except OutputError as error:
        _say(f"kvmscen: {error}")
        return 3
    except Exception as error:  # noqa: BLE001 the border of the program
        if signals.status():
            # What a signal interrupts may break of it.
            return signals.status()
        _say(f"kvmscen: {unexpected.told(error)}")
        return 3


def _say(text: str) -> None:
    try:
        print(text, file=sys.stderr)
    except (OSError, OutputError):
        pass


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as end:
        # argparse has said what is wrong, or helped.
        return end.code if isinstance(end.code, int) else 2
    verb: str | None = arguments.verb
    if verb is None:
        parser().print_help()
        return 2
    if getattr(arguments, "assembler", None) is None and (
        named := os.environ.get("KVMSCEN_ASSEMBLER")
    ):
        if named not in ASSEMBLERS:
            raise UsageError(
                f"KVMSCEN_ASSEMBLER: {named!r} is no assembler: {' or '.join(ASSEMBLERS)}"
            )
        arguments.assembler = named
    if verb in ("run", "measure"):
        environment(arguments)
    # The children inherit it.
    os.environ["KVMSCEN_SANDBOX"] = asked = (
        getattr(arguments, "sandbox", None) or os.environ.get("KVMSCEN_SANDBOX") or "auto"
    )
    if asked not in MODES:
        raise UsageError(
            f"KVMSCEN_SANDBOX: {asked!r} is none of its values: write {', '.join(MODES)}"
        )
    if getattr(arguments, "allow_host_effects", False):
        os.environ["KVMSCEN_ALLOW_HOST_EFFECTS"] = "1"
    from kvmscen.hosts.process import confinement

    confinement.tell.append(lambda message: _say(f"kvmscen: {message}"))
    status: int = getattr(importlib.import_module(f"kvmscen.cli.{verb}"), verb)(arguments)
    return status
