"""Views of several callers through a network together."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ktl.inference.formats import Classify
from ktl.inference.predict import BATCH_SIZE

WAIT = 0.002
"""Seconds that a photo waits for others to share its batch; a tenth of a pass of MobileNet over one photo."""


class Batcher:
    """Sends views of several callers through a network together.

    Args:
        classify: see `ktl.inference.predictor.Predictor`; is called in one thread of its own.
        batch_size: views at a time, at most.
        wait: seconds that the first view of a batch waits for others.
    """

    def __init__(self, classify: Classify, *, batch_size: int = BATCH_SIZE, wait: float = WAIT):
        self.batch_size, self.wait = batch_size, wait
        self._classify = classify
        self._queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1)

    async def classify(self, view: np.ndarray) -> np.ndarray:
        """Probabilities, float32 [classes], of one view, uint8 [size, size, 3].

        Raises:
            Exception: what `classify` raised for its batch.
        """
        answer = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((view, answer))
        return await answer

    async def run(self) -> None:
        """Answers until it is cancelled."""
        try:
            while True:
                await self._answer(await self._batch())
        finally:
            self._thread.shutdown(wait=False)

    async def _batch(self) -> list[tuple[np.ndarray, asyncio.Future]]:
        batch = [await self._queue.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.wait):
                while len(batch) < self.batch_size:
                    batch.append(await self._queue.get())
        return batch

    async def _answer(self, batch: list[tuple[np.ndarray, asyncio.Future]]) -> None:
        views, answers = zip(*batch, strict=True)
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._classify, np.stack(views))
        (result,) = await asyncio.gather(work, return_exceptions=True)  # an error is its callers', not this task's
        for index, answer in enumerate(answers):
            if answer.done():
                continue  # its caller is gone
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result[index])
