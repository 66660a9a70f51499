"""The pipeline: which cases are prepared, run and judged, by which children, and in which order
their results come.
"""
