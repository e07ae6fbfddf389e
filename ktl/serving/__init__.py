"""A trained classifier over HTTP: the app, its batches, its page.

May import inference, data and the modules at the root.
Knows nothing of training, and no settings.
"""
