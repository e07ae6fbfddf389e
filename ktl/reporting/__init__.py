"""HTML pages of runs, searches and studies, made from the files in their folders.

May import runs (folders), evaluation, data and the modules at the root; no settings and no KerasTuner.
"""
