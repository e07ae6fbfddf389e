"""What experiments/benchmark.py measures: a module a section, each with a table of its ways.

A section has WAYS, name -> function from the settings to a measurement; ROUNDS, how often each is measured if no flag
says so; and `cases(settings)`, what its ways are compared on -> their names, in the order of measurement, the baseline
first. A measurement has `seconds`, and may have `units` of work done in them, the `unit`'s name, `validation_top1`,
`test_top1`, `note`, and whatever else is worth keeping.

A section may have `variables(settings)`, of the environment of a measurement's process, which then is a new one that
has loaded nothing.

The settings are the flags and `section`, `case`, `way` and `round`; `folder`, which the ways of a case share in a
round; and `earlier`, the last measurement of each way of the case: of this round, or of the round before for those that
have not been measured again.
"""

from benchmarks import (
    accelerator,
    beam,
    evolve,
    forward_pass,
    fusion,
    grid,
    guide,
    memory,
    portions,
    scaling,
    stages,
    start,
    step,
    training,
    use,
)

SECTIONS = {
    "training": training,
    "step": step,
    "pass": forward_pass,
    "grid": grid,
    "fusion": fusion,
    "start": start,
    "scaling": scaling,
    "portions": portions,
    "beam": beam,
    "memory": memory,
    "stages": stages,
    "use": use,
    "guide": guide,
    "evolve": evolve,
    "accelerator": accelerator,
}
