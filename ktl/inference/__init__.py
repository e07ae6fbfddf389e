"""Trained classifiers of any format as functions of photos, and labels for photos.

May import data and models; nothing of training.
"""
