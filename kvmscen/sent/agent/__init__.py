"""The agent: a process that takes Machines as frames on its input and answers each with an
Observation.
"""
