"""Trained classifiers of any format as functions of photos, and labels for photos.

May import data, models and evaluation.
Knows nothing of training, and no settings.
"""
