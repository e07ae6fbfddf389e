"""Scores, calibration and intervals: statistics alone.

Imports no other package.
"""
