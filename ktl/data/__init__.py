"""Data sets and their splits, photos as pixels, batches of them, photos that look alike.

May import the modules at the root.
Knows no networks and no settings.
"""
