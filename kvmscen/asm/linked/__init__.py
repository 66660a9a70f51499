"""Executables that are linked already: a file comes in, a Program with its sections, symbols and
lines goes out.
"""
