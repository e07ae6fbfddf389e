"""The settings of runs, searches and studies, and the search space.

May import models.heads alone; cli, studies, tuning and runs import it.
"""
