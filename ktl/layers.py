"""Where version 0.1 had `ktl.models.layers`: `import ktl.layers` before `keras.models.load_model` keeps working."""

from ktl.models.layers import ScaledUnitNormalization
from ktl.registration import register_classes

__all__ = ["ScaledUnitNormalization"]

register_classes()
