"""An upstream whose answers are large in different ways."""

from collections.abc import Sequence

from ..peers import NginxAnswer, Place
from ..peers.nginx import ANSWER

BODY = "/body-{}"
FIELDS = "/fields-{}"


class Origin(NginxAnswer):
    """The usual one, and more: `/body-N` has N bytes, `/fields-N` has N fields beside the usual ones."""

    def __init__(self, *, bodies: Sequence[int] = (), fields: Sequence[int] = ()) -> None:
        self.bodies = bodies
        places = [f"location = {BODY.format(size)} {{{{ root {{folder}}; }}}}" for size in bodies]
        for count in fields:
            added = " ".join(
                f'add_header x-answer-{number} "value of some length";' for number in range(count)
            )
            body = 'root {folder}; rewrite ^ /body break; add_header Last-Modified "";'
            places.append(f"location = {FIELDS.format(count)} {{{{ {body} {added} }}}}")
        self.site = ANSWER.replace("location / ", "\n        ".join([*places, "location / "]))

    def command(self, program: str, place: Place) -> Sequence[str]:
        for size in self.bodies:
            place.write(BODY.format(size).lstrip("/"), "x" * size)
        return super().command(program, place)
