"""From what a host saw to a verdict: an Expectation and an Observation come in, a Result goes out.

`verdict` decides, `walk` goes along the steps that the host took, `align` lays what was expected
beside what was seen, `hints` and `accesses` say more about it.
"""
