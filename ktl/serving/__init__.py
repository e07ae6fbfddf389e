"""A trained classifier over HTTP.

May import inference and data; nothing of training.
"""
