"""What the frozen layers give for every photo, computed once and kept on disk.

May import data and models.
Takes values and knows no settings.
"""
