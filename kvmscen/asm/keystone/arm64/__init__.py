"""arm64 for Keystone: operands, literal pools, aliases, and instructions that Keystone does not
know.
"""
