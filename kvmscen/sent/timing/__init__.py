"""Times KVM_RUN: loops of machine code for each architecture, and from their records to samples."""
