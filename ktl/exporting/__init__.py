"""Trained classifiers as SavedModel, LiteRT, ONNX or Keras files, each verified, with a model card.

May import inference, runs and all below.
Knows nothing of tuning and studies, and no settings.
"""

from ktl.process import require_tensorflow

require_tensorflow("an export")
