"""`python -m kvmscen`."""

from kvmscen.cli import main

main()
