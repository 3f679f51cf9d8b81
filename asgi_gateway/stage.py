"""The only place that says in which order the components of a chain stand."""

from enum import IntEnum


class Stage(IntEnum):
    """A question that a component answers; the order of the questions is the order of the chain, outermost
    first.

    OBSERVE to CACHE stand on routes, TRANSFORM and RESCUE to PROTECT on upstreams.
    """

    OBSERVE = 1  # What happened?
    GUARD = 2  # May it come in at all?
    AUTH = 3  # Who is calling?
    LIMIT = 4  # May they call this often?
    TRANSFORM = 5  # What shall the upstream see?
    SPLIT = 6  # Which upstream?
    CACHE = 7  # Do we know the answer already?
    RESCUE = 8  # What instead of a failure?
    RETRY = 9  # Once more, elsewhere?
    PROTECT = 10  # Can that upstream cope?

    @property
    def on_routes(self) -> bool:
        return self <= Stage.CACHE

    @property
    def on_upstreams(self) -> bool:
        return self is Stage.TRANSFORM or self >= Stage.RESCUE
