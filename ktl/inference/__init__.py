"""Trained classifiers of any format as functions of photos, and labels for photos.

May import backends, data and models.
Knows nothing of training, and no settings.
"""
