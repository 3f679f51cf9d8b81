"""What stands behind the gateway: targets, the pool that picks one, and what is known of their health."""

from .pool import Pool
from .target import Target

__all__ = ["Pool", "Target"]
