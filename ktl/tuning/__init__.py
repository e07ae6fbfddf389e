"""Hyperparameter search with KerasTuner: hypermodel, oracles, workers, trials.

May import runs and all below; studies and cli import it.
"""
