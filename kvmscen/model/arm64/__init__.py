"""The modelled arm64 guest: its instructions, KVM's rules for them, PSCI."""
