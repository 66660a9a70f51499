"""KVM's own interface: <linux/kvm.h> as tables, descriptors that own themselves, and the executor."""
