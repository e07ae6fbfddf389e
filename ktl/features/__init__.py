"""What the frozen layers give for every photo, computed once and kept on disk.

May import backends, data and models.
Takes values and knows no settings.
"""
