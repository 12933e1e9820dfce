"""A member that may fail: it raises, answers the wrong shape, or does not come back in time. The others go on."""

import queue
import threading

import torch
from torch import Tensor

from robustseg.core.types import Images, Network
from robustseg.monitor.detector import finite

NOT_FINITE, LATE = "an answer that is not finite", "no answer within"
"""Problems that may pass with the next frame."""


class Guard:
    """Asks one member; answers None, with the reason in `problem`, where it fails.

    With a timeout the member works in a thread of its own. A thread cannot be stopped: one that hangs keeps its member
    out until it comes back, if ever, and does not keep the program from ending.

    Args:
        member: the network. timeout: seconds to wait for it; None waits for ever, without a thread.
    """

    def __init__(self, member: Network, timeout: float | None = None):
        self.member, self.timeout, self.problem = member, timeout, ""
        self._busy = False
        self._asked: queue.SimpleQueue[Tensor] = queue.SimpleQueue()
        self._answered: queue.SimpleQueue[Tensor | str] = queue.SimpleQueue()
        if timeout is not None:
            threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, images: Images) -> Tensor | None:
        """The logits `[b, k, h, w]`, finite, or None."""
        answer = self._answer(images) if self.timeout is None else self._answer_in_time(images, self.timeout)
        self.problem = answer if isinstance(answer, str) else ""
        return None if isinstance(answer, str) else answer

    @property
    def unfit(self) -> bool:
        """Whether the member raised on the last images, or answered in another shape."""
        return bool(self.problem) and self.problem != NOT_FINITE and not self.problem.startswith(LATE)

    def _answer(self, images: Tensor) -> Tensor | str:
        try:
            with torch.inference_mode():
                logits = self.member(images)
                return _misfit(logits, images, len(self.member.label_space)) or logits
        except Exception as error:  # whatever it is, the other two go on
            return f"{type(error).__name__}: {error}"

    def _answer_in_time(self, images: Tensor, timeout: float) -> Tensor | str:
        try:
            if self._busy:  # what it says at last belongs to a frame that is gone
                self._answered.get_nowait()
            self._asked.put(images)
            self._busy = True
            answer = self._answered.get(timeout=timeout)
            self._busy = False
            return answer
        except queue.Empty:
            return f"{LATE} {timeout:g} s"

    def _work(self) -> None:
        while True:
            self._answered.put(self._answer(self._asked.get()))


def _misfit(logits: object, images: Tensor, classes: int) -> str:
    """What is wrong with an answer; nothing if it fits. Looking at its values waits for a GPU to be done."""
    if not isinstance(logits, Tensor):
        return f"a {type(logits).__name__} for an answer"
    b, _, h, w = images.shape
    if logits.ndim != 4 or (len(logits), *logits.shape[2:]) != (b, h, w) or logits.shape[1] < classes:
        return f"an answer {tuple(logits.shape)} for images {tuple(images.shape)}"
    return "" if bool(finite(logits).all()) else NOT_FINITE
