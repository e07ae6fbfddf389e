"""Hyperparameter search with KerasTuner: tuner, oracles, workers, trials.

May import runs and all below.
cli alone imports it.
"""
