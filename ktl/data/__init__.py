"""Data sets, photos and batches of them.

May import the modules at the root alone.
"""
