"""The command line: arguments, verbs, what they print, and the exit status."""
