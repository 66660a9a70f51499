"""What was judged or measured, and all that reports see of it. Frozen values."""
