"""Training on a feed, with the optimizer, schedule and checkpoints of a run of ktl."""

import tempfile

from benchmarks.work import Work
from ktl.machine import faster_on_cpu
from ktl.runs.run import Prepared
from ktl.training import fit as training
from ktl.training.inputs import Feed


def compile_feed(work: Work, feed: Feed) -> None:
    """Compiles a feed's model as a run does."""
    Prepared(work.config, work.machine, work.network, feed).compile()


def fit_suffix(work: Work, feed: Feed) -> list[dict]:
    """Trains the suffix as a run does; the history."""
    with faster_on_cpu(work.network.suffix.layers):
        return fit_feed(work, feed)


def fit_feed(work: Work, feed: Feed) -> list[dict]:
    """Compiles and trains a feed's model with Keras' own layers; the history."""
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
