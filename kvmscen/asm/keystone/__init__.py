"""The assembler that needs no tools: statements to items to bytes, with Keystone as the encoder of
single instructions.

It is frozen: what it cannot do goes to GNU as.
"""
