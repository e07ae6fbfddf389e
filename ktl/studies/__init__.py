"""The matched comparison of heads, freeze depths and seeds, and what it says.

May import runs and all below.
cli imports it; reports read its files as data.
"""
