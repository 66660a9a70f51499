"""x86 for Keystone: operands in Intel and AT&T syntax, sizes, branches, and what Keystone gets
wrong.
"""
