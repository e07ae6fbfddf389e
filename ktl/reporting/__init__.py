"""HTML pages of runs, searches and studies, made from the files in their folders.

May import runs (their folders), evaluation and data.
Reads settings as data; no KerasTuner.
"""
