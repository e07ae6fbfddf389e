"""What Keras does not offer of its backends, TensorFlow and JAX: a module of each for each purpose.

May import data and models.
Takes values and knows no settings.
"""
