"""Things that are made ahead: in order, as themselves where they fail, and without threads that stay."""

import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from ktl.data.batches import ArraySpec, Batches, made_ahead


def ktl_threads() -> int:
    return sum(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())


def numbers(count=9, *, make=lambda number: number, threads=2):
    specs = ArraySpec((None,), "int64"), ArraySpec((None,), "int64")
    return Batches(count, lambda number: (np.full(2, make(number)), np.zeros(2, int)), specs, threads)


def test_batches_come_in_order_however_long_each_takes():
    batches = numbers(make=lambda number: time.sleep(0.02 * (number % 2 == 0)) or number, threads=4)
    for _ in range(2):
        assert [x[0] for x, _ in batches] == list(range(9))
    assert batches[8][0][0] == 8
    for number in (9, -1):
        with pytest.raises(IndexError):
            batches[number]


def test_several_are_made_at_a_time():
    """Two threads that wait for each other."""
    together = threading.Barrier(2, timeout=20)

    def make(number):
        together.wait()
        return number

    assert list(made_ahead(make, range(20), threads=2)) == list(range(20))


def test_no_more_is_begun_than_what_is_taken_is_being_made_and_may_wait():
    begun = []
    given = (begun.append(number) or number for number in range(20))
    found = made_ahead(lambda number: number, given, threads=2, waiting=3)
    for taken in range(1, 10):
        next(found)
        assert len(begun) == taken + 2 + 3
    found.close()


def test_few_batches_are_in_memory_however_many_there_are():
    """Those that threads make, those that wait, the caller's, and the one that was given out last."""
    alive, most = weakref.WeakSet(), []

    class Thing:
        """One that can be counted."""

    def make(number):
        thing = Thing()
        alive.add(thing)
        most.append(len(alive))
        return thing

    for _ in made_ahead(make, range(200), threads=2, waiting=3):
        time.sleep(0.0005)
    assert len(most) == 200
    assert max(most) <= 2 + 3 + 2


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_threads_end_with_the_iterator(taken):
    before = ktl_threads()
    for _ in range(50):
        found = iter(numbers())
        for _ in range(taken):
            next(found)
        del found
    list(numbers())
    assert ktl_threads() == before


class Broken(Exception):
    """Raised while a batch is made."""


def fail_at(which, error):
    def make(number):
        if number == which:
            raise error
        return number

    return make


@pytest.mark.parametrize("error", [Broken("of the sixth"), KeyboardInterrupt()])
def test_what_fails_is_raised_in_its_turn(error):
    before = ktl_threads()
    taken = iter(numbers(make=fail_at(5, error)))
    assert [next(taken)[0][0] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(type(error)):
        next(taken)
    assert ktl_threads() == before


def test_an_interrupt_ends_the_threads_too():
    before = ktl_threads()

    def train(batches):
        for number, _ in enumerate(batches):
            if number == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(numbers())
    assert ktl_threads() == before


def test_photos_and_features_become_batches_without_tensorflow_and_keras():
    modules = "ktl.data.input_pipeline, ktl.features.batches, ktl.inference.photos"
    program = f"import sys, {modules}; print({{'tensorflow', 'keras', 'jax'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"
