"""The frozen layers' outputs for every photo, computed once and kept on disk.

May import data and models; knows no settings.
"""
