"""What several formats do with pixels: transparency on white, palettes."""

# TensorFlow's type stubs know no "..." in an index, and no tensors in the place of sizes.
# pyright: reportArgumentType=false

import tensorflow as tf


def on_white(image: tf.Tensor) -> tf.Tensor:
    """round((alpha * rgb + (255 - alpha) * 255) / 255) of uint8 [height, width, 4]."""
    image = tf.cast(image, tf.uint16)
    alpha = image[..., 3:]
    # Fits 16 bits; and x / 255 is rounded by (x' + x' // 256) // 256 with x' = x + 128 for all x up to 255 * 255.
    total = image[..., :3] * alpha + (255 - alpha) * 255 + 128
    return tf.cast((total + total // 256) // 256, tf.uint8)


def full_palette(colors: tf.Tensor) -> tf.Tensor:
    """uint8 [up to 256, 3] -> [256, 3], the rest black, as Pillow has it."""
    return tf.pad(colors, [[0, 256 - tf.shape(colors)[0]], [0, 0]])
