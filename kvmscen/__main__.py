"""`python -m kvmscen`, and the command `kvmscen`."""

import signal


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # While modules are loaded a ^C just ends us, as it ends any program; the command line takes over when it can answer it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kvmscen.cli.main import main

    main()


if __name__ == "__main__":
    main()
