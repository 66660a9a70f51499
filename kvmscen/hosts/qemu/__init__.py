"""Linux machines that QEMU boots in software, with KVM inside: what they are made of, and how they
are made and kept.
"""
