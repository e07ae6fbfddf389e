"""Views of several callers through one function."""

import asyncio
import time

import numpy as np

from ktl.serving.batching import Batcher


def run_batcher(classify, views, *, batch_size: int = 4, wait: float = 0.01) -> list:
    """What each of the callers that come at the same time gets: probabilities or an error."""

    async def main():
        batcher = Batcher(classify, batch_size=batch_size, wait=wait)
        running = asyncio.create_task(batcher.run())
        try:
            return await asyncio.gather(*map(batcher.classify, views), return_exceptions=True)
        finally:
            running.cancel()

    return asyncio.run(main())


def test_callers_share_batches_and_get_their_own_rows():
    sizes = []

    def classify(views):
        sizes.append(len(views))
        return views.mean(axis=(1, 2))

    views = [np.full((2, 2, 3), value, np.uint8) for value in range(10)]
    answers = run_batcher(classify, views)
    assert sizes == [4, 4, 2]
    np.testing.assert_array_equal(answers, [[value] * 3 for value in range(10)])


def test_callers_that_come_while_the_network_works_share_the_next_batch():
    sizes = []

    def classify(views):
        sizes.append(len(views))
        time.sleep(0.1)
        return views

    async def main():
        batcher = Batcher(classify, batch_size=8, wait=0)
        running = asyncio.create_task(batcher.run())
        first = asyncio.create_task(batcher.classify(np.zeros(3)))
        await asyncio.sleep(0.03)
        await asyncio.gather(first, *(batcher.classify(np.zeros(3)) for _ in range(5)))
        running.cancel()

    asyncio.run(main())
    assert sizes == [1, 5]


def test_one_caller_does_not_wait_for_a_full_batch():
    began = time.perf_counter()
    (answer,) = run_batcher(lambda views: views, [np.ones(3)], batch_size=64, wait=0.01)
    assert time.perf_counter() - began < 0.5
    np.testing.assert_array_equal(answer, np.ones(3))


def test_an_error_is_that_of_its_batch_alone():
    def classify(views):
        if views.max() == 1:
            raise ArithmeticError("one")
        return views

    answers = run_batcher(classify, [np.full(3, value) for value in (0, 1, 2, 3)], batch_size=2)
    assert [type(answer) for answer in answers] == [ArithmeticError, ArithmeticError, np.ndarray, np.ndarray]
