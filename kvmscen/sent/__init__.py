"""All that is sent to the machine with /dev/kvm: standard library and Python 3.9, and no import
from outside this folder.

In comes a Machine (what to build and where each exit should be), out goes an Observation (what
happened).
"""
