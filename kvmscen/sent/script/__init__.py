"""What takes an exit: the script of a vCPU, one interpreter for every host, and the recorder of
what happened.
"""
