"""Formats of photos in TensorFlow operations: a module a format, and what they share.

May import TensorFlow and Pillow alone.
`ktl.exporting.image_decoding` has the table of the formats.
"""
