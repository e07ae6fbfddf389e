"""One training from its settings to a finished folder, and what the kept layer knows.

May import training, features, config and all below.
Whatever makes or reads a run's folder imports it.
"""
