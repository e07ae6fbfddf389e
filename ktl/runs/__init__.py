"""One training from its settings to a finished folder.

May import training, features, config and all below.
"""
