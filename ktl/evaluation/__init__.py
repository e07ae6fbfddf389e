"""Scores, calibration and intervals.

May import the modules at the root.
Statistics alone: arrays in, numbers out, no networks.
"""
