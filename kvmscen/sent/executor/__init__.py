"""Builds what a Machine says and runs its script or its measurement: a Machine comes in, an
Observation goes out.
"""
