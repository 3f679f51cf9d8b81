"""Request ids."""

import os
import re

from asgi_gateway.ids import new_id


def test_ids_are_32_hexadecimal_digits_and_never_the_same() -> None:
    ids = [new_id() for _ in range(1000)]
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)
    assert len(set(ids)) == 1000


def test_a_forked_process_gives_other_ids_than_its_parent() -> None:
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode() != new_id()
    os.close(reading)
    os.close(writing)
