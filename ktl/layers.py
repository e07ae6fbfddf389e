"""Where version 0.1 had `ktl.models.layers`: `import ktl.layers` before `keras.models.load_model` keeps working."""

from ktl.models.layers import ScaledUnitNormalization

__all__ = ["ScaledUnitNormalization"]
