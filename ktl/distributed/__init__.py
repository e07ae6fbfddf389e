"""Work that many processes or machines divide: `portions` of photos, `features`, `predictions` of one, Apache `beam`.

May import `runs` and all packages below it.
Whoever divides the work, a job array or an engine, calls these and nothing else.
"""
