"""Compares passwords with argon2 hashes, in threads: that takes long on purpose."""

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from os import urandom

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

REMEMBERED = 10_000
"""Passwords that fitted and are not compared again for a while."""


def check_hash(text: str) -> None:
    """ValueError if it is no argon2 hash."""
    try:
        extract_parameters(text)
    except InvalidHashError:
        raise ValueError("no argon2 hash") from None


class Hashing:
    """So many comparisons at one time. The same one is made once, however many ask for it."""

    def __init__(
        self, threads: int, max_waiting: int, remember: float, monotonic: Callable[[], float]
    ) -> None:
        self._most = threads + max_waiting
        self._places = asyncio.Semaphore(threads)
        self._remember = remember
        self._monotonic = monotonic
        self._hasher = PasswordHasher()
        self._key = urandom(32)
        self._fitted: dict[bytes, float] = {}
        self._running: dict[bytes, asyncio.Task[bool]] = {}

    async def fits(self, text: str, password: bytes) -> bool | None:
        """Whether the password is the one behind this hash; None if too many wait already."""
        mark = blake2b(text.encode() + b"\0" + password, key=self._key, digest_size=32).digest()
        until = self._fitted.get(mark)
        if until is not None:
            if self._monotonic() < until:
                return True
            del self._fitted[mark]
        task = self._running.get(mark)
        if task is None:
            if len(self._running) >= self._most:
                return None
            task = asyncio.get_running_loop().create_task(self._compare(mark, text, password))
            self._running[mark] = task
        # In a task of its own: who leaves does not give a place back that a thread still uses.
        return await asyncio.shield(task)

    async def _compare(self, mark: bytes, text: str, password: bytes) -> bool:
        try:
            async with self._places:
                fits = await asyncio.to_thread(self._verify, text, password)
        finally:
            del self._running[mark]
        if fits and self._remember:
            if len(self._fitted) >= REMEMBERED:
                del self._fitted[next(iter(self._fitted))]
            self._fitted[mark] = self._monotonic() + self._remember
        return fits

    def _verify(self, text: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(text, password)
        except (VerificationError, InvalidHashError):
            return False

    async def aclose(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
