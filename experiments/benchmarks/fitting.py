"""Training on a feed, as a run of ktl does it."""

import tempfile

from benchmarks.work import Work
from ktl import training
from ktl.feeding import Feed


def compile_feed(work: Work, feed: Feed) -> None:
    """Compiles a feed's model as a run does."""
    training.compile_model(
        feed.model,
        head_variables=work.network.head_variables,
        config=work.config,
        steps_per_epoch=work.steps_per_epoch,
        xla=work.machine.xla,
        steps_per_execution=work.steps_per_epoch if feed.trains_head_alone else 1,
    )


def fit_feed(work: Work, feed: Feed) -> list[dict]:
    """Compiles and trains a feed's model as a run does; the history."""
    compile_feed(work, feed)
    with tempfile.TemporaryDirectory() as folder:
        return training.fit(
            feed.model,
            train=feed.train,
            steps_per_epoch=work.steps_per_epoch,
            validation=feed.evaluate(work.dataset.validation),
            config=work.config,
            checkpoint_dir=folder,
        )
