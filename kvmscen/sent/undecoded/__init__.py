"""arm64 loads and stores by their bits: which of them KVM can decode, and how the others are
carried out.
"""
