"""The settings of runs, searches and studies, and the search space: flags, defaults, JSON.

May import models.heads, evaluation.objectives and the modules at the root, nothing heavy.
cli, studies, tuning and runs import it, nothing else does.
"""
