"""The entry point: what every verb has in common, what is printed when one breaks, and the exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from kvmscen.cli.arguments import ASSEMBLERS, environment, parser
from kvmscen.cli.streams import install
from kvmscen.errors import HostError, UsageError
from kvmscen.sandbox import MODES

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point: parse, do the verb, exit with its status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Whoever started us has closed it; the exit status still counts.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    install()
    try:
        status = _status(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        status = 130
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # Worker threads may still wait for children that are gone.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 3
    os._exit(status)


def _status(argv: Sequence[str]) -> int:
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _SIGNALS[1:]:
        # As ^C: what ran is reported, and no child is left behind.
        signal.signal(number, signal.default_int_handler)
    try:
        status = _main(argv)
        sys.stdout.flush()
        return status
    except (UsageError, HostError) as error:
        _say(f"kvmscen: {error}")
        return 2 if isinstance(error, UsageError) else 3
    except BrokenPipeError:
        # Whoever read us has gone; Python must not try to flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        # A report or the screen could not be written; files that are read have their own messages.
        _say(f"kvmscen: the output could not be written: {error.strerror}")
        return 3


def _say(text: str) -> None:
    try:
        print(text, file=sys.stderr)
    except OSError:
        pass


def _main(argv: Sequence[str]) -> int:
    arguments = parser().parse_args(argv)
    verb: str | None = arguments.verb
    if verb is None:
        parser().print_help()
        return 2
    if getattr(arguments, "assembler", None) is None and (named := os.environ.get("KVMSCEN_ASSEMBLER")):
        if named not in ASSEMBLERS:
            raise UsageError(f"KVMSCEN_ASSEMBLER: {named!r} is no assembler: {' or '.join(ASSEMBLERS)}")
        arguments.assembler = named
    if verb in ("run", "measure"):
        environment(arguments)
    # The children inherit it.
    os.environ["KVMSCEN_SANDBOX"] = asked = getattr(arguments, "sandbox", None) or os.environ.get("KVMSCEN_SANDBOX") or "auto"
    if asked not in MODES:
        raise UsageError(f"KVMSCEN_SANDBOX: {asked!r} is none of its values: write {', '.join(MODES)}")
    if getattr(arguments, "allow_host_effects", False):
        os.environ["KVMSCEN_ALLOW_HOST_EFFECTS"] = "1"
    from kvmscen import verbs
    from kvmscen.hosts import confinement

    confinement.tell.append(lambda told: _say(f"kvmscen: {told}"))

    return verbs.VERBS[verb](arguments)
