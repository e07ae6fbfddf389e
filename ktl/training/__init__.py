"""Compiling and fitting a classifier, and the batches that it is fitted on.

Takes values, no settings; may import features, data, models and evaluation.
"""
