"""The only place that knows where state lives which several processes may share."""

from .base import Arg, Script, Store, StoreError
from .guarded import Guarded
from .memory import MemoryStore
from .opening import open_store
from .records import StoreRecords, records_of

__all__ = [
    "Arg",
    "Guarded",
    "MemoryStore",
    "Script",
    "Store",
    "StoreError",
    "StoreRecords",
    "open_store",
    "records_of",
]
