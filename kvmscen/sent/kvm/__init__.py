"""/dev/kvm, VMs and vCPUs that own their descriptors, and what an architecture's registers are in
KVM's structs.
"""
