"""Writes trained classifiers as SavedModel, LiteRT, ONNX or Keras files and verifies them.

May import inference, runs and all below; not tuning or studies.
"""
