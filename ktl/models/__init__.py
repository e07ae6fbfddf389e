"""The classifier: backbones, heads, layers, freeze boundaries. Keras alone, no TensorFlow.

May import the modules at the root alone.
"""
