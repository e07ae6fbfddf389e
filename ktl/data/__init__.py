"""Data sets: where photos come from, how they are decoded and augmented, and batches of them.

May import the modules at the root alone.
"""
