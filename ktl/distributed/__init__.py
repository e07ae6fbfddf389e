"""Work that many processes or machines divide: `portions` of a list of photos, `features` computes one of them.

May import `runs` and all packages below it.
Whoever divides the work, a job array or an engine, calls these and nothing else.
"""
