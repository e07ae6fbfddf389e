"""HTML pages of runs, searches and studies, made from the files in their folders.

May import runs (what is left of one), models (names of heads), data and evaluation. Settings are read as data; neither
TensorFlow nor KerasTuner is loaded.
"""
