"""Fitting a classifier: the inputs that it is fitted on, checkpoints, the optimizer.

May import features, backends, data, models and evaluation.
Takes values and knows no settings.
"""
