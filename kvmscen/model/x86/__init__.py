"""The modelled x86 guest: its instructions, KVM's emulator, port and memory accesses that leave
it.
"""
