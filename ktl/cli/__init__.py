"""The command line: `main`, its commands and flags, and `console`, what a terminal shows.

May import every package, heavy ones inside the commands alone.
Nothing imports it.
"""
