"""What `ktl features` and `ktl predict` ask of the flags of Apache Beam."""

import shlex
from argparse import Namespace
from collections.abc import Sequence

from ktl.errors import UserError


def check_runner(options: Namespace, *, needed_by: Sequence[str]) -> None:
    """Raises UserError where flags are given that need a runner, or one that excludes it."""
    alone = [name for name in needed_by if getattr(options, name)]
    if options.runner is None and alone:
        raise UserError(f"Expected `runner` with `{alone[0]}`. Received: none")
    if options.runner and options.shard is not None:
        raise UserError(f"Expected no `shard` with `runner`, which computes all of them. Received: {options.shard}")


def runner_flags(options: Namespace) -> list[str]:
    """Beam's own flags. Raises UserError where they are no flags to a shell."""
    try:
        return shlex.split(options.runner_options)
    except ValueError as error:
        raise UserError(f"Expected `runner_options` as a shell reads flags. Received: {error}") from error
