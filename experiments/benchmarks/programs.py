"""How steps of a suffix are made into programs of JAX: one by one, an epoch of them, several trainings vectorized."""

import functools
import time

VECTORIZED = (5, 30)
"""Trainings at once."""


def measure(settings) -> dict:
    """Steps of one batch of made-up features behind `trials_depth`, in float32 and after they were compiled."""
    import keras

    from benchmarks.feeds import random_batch
    from benchmarks.work import prepare

    work = prepare(settings, depth=settings.trials_depth, precision="float32")
    suffix = work.classifier.suffix
    suffix.compile(optimizer=keras.optimizers.SGD(1e-3, momentum=0.9), loss=_loss())
    seconds, compiling, count = WAYS[settings.way](suffix, random_batch(work), settings.steps)
    note = f"behind {work.classifier.boundary.name}; compiled in {compiling:.1f} s"
    return {"seconds": seconds * count, "units": count, "unit": "steps", "note": note}


def fit(suffix, batch, steps: int, *, at_hand: bool) -> tuple[float, float, int]:
    """Keras' own steps; seconds a step, seconds to compile, and steps."""
    import jax
    import keras

    times = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: times.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()),
    )
    given = jax.device_put(batch) if at_hand else batch
    training = {"epochs": 2, "steps_per_epoch": steps, "callbacks": [clock], "verbose": 0}
    keras.Model.fit(suffix, (given for _ in range(2 * steps)), shuffle=False, **training)
    first, second = times[1] - times[0], times[3] - times[2]
    return second / steps, first - second, steps


def epoch(suffix, batch, steps: int) -> tuple[float, float, int]:
    """All steps in one program, of features in the device's memory."""
    import jax

    features, labels = jax.device_put(batch)
    take = functools.partial(_step, suffix)

    @jax.jit
    def program(state, features, labels):
        return jax.lax.scan(lambda state, _: (take(state, features, labels), None), state, length=steps)[0]

    return *_timed(lambda: program(_state(suffix), features, labels), steps), steps


def vectorized(suffix, batch, steps: int, *, trainings: int) -> tuple[float, float, int]:
    """A step of several trainings at once; a step of one of them counts."""
    import jax
    import jax.numpy as jnp

    features, labels = jax.device_put(batch)
    state = jax.tree.map(lambda value: jnp.stack([value] * trainings), _state(suffix))
    program = jax.jit(jax.vmap(functools.partial(_step, suffix), in_axes=(0, None, None)))

    def run():
        current = state
        for _ in range(steps):
            current = program(current, features, labels)
        return current

    return *_timed(run, steps * trainings), steps * trainings


def _state(suffix) -> tuple[list, list, list]:
    """Weights, other variables, and the optimizer's."""
    suffix.optimizer.build(suffix.trainable_variables)
    groups = suffix.trainable_variables, suffix.non_trainable_variables, suffix.optimizer.variables
    return tuple([variable.value for variable in group] for group in groups)  # pyright: ignore[reportReturnType]


def _step(suffix, state, features, labels):
    import jax

    def loss_of(weights):
        logits, after = suffix.stateless_call(weights, others, features, training=True)[:2]
        return _loss()(labels, logits), after

    weights, others, own = state
    gradients, others = jax.grad(loss_of, has_aux=True)(weights)
    weights, own = suffix.optimizer.stateless_apply(own, gradients, weights)
    return weights, others, own


def _loss():
    from ktl.models.recipe import SmoothedCrossEntropy

    return SmoothedCrossEntropy()


def _timed(function, steps: int) -> tuple[float, float]:
    """Seconds a step of the second call, and what the first one took longer."""
    import jax

    times = []
    for _ in range(2):
        started = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - started)
    return times[1] / steps, max(0.0, times[0] - times[1])


WAYS = {
    "Keras' fit": functools.partial(fit, at_hand=False),
    "Keras' fit, batches in the device's memory": functools.partial(fit, at_hand=True),
    "an epoch in one program": epoch,
    **{f"{count} vectorized": functools.partial(vectorized, trainings=count) for count in VECTORIZED},
}
