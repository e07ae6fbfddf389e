"""The command line: parses commands, shows progress and tables on the terminal.

May import every package; nothing imports it.
"""
