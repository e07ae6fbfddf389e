"""The classifier: backbones, heads, layers, freeze boundaries, and the recipe of its training.

May import Keras and the modules at the root.
No TensorFlow, no photos, no settings.
"""
