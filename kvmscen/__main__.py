"""`python -m kvmscen`, and the command `kvmscen`."""

import os
import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

for _number in _SIGNALS:
    # While modules are loaded a signal just ends us: there is nothing yet to report or to stop.
    # Here, at the top, since loading takes a tenth of a second. What is ignored stays so, as under
    # nohup.
    if signal.getsignal(_number) is not signal.SIG_IGN:
        signal.signal(_number, lambda number, _: os._exit(128 + number))


def main() -> None:
    """Run the command line."""
    try:
        from kvmscen.cli.main import main
    except Exception as error:
        # Too little memory to load what is needed, or half an installation.
        if os.environ.get("KVMSCEN_DEBUG"):
            raise
        what = (
            "there is not enough memory to start"
            if isinstance(error, MemoryError)
            else f"cannot start: {error}"
        )
        os.write(2, f"kvmscen: {what}\n".encode(errors="backslashreplace"))
        os._exit(3)
    main()


if __name__ == "__main__":
    main()
