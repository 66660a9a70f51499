"""What goes round the host: a Job, with what must be seen of it and what its addresses mean. Frozen
values.
"""
