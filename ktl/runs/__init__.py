"""One training from its settings to a finished folder, and what the kept layer knows.

May import training, features, config and all below.
tuning, studies and exporting import it.
"""
