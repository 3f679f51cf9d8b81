"""The only place that says what a user declares. The models are the Python API and the file format alike."""

from .chain import POLICY, Chain, Use, When
from .gateway import GatewayConfig, PluginsConfig, Route
from .model import TRANSPORTS, Methods, Model, Name, Pairs, read_pairs
from .server import Limits, Paths, Probes, Server, ServerTLS
from .store import StoreConfig, StoredConsumers
from .upstream import (
    EjectionConfig,
    HashConfig,
    HealthConfig,
    PoolConfig,
    StickyConfig,
    TargetConfig,
    TimeoutConfig,
    Upstream,
    UpstreamTLS,
    WebSocketConfig,
)

__all__ = [
    "POLICY",
    "TRANSPORTS",
    "Chain",
    "EjectionConfig",
    "GatewayConfig",
    "HashConfig",
    "HealthConfig",
    "Limits",
    "Methods",
    "Model",
    "Name",
    "Pairs",
    "Paths",
    "PluginsConfig",
    "PoolConfig",
    "Probes",
    "Route",
    "Server",
    "ServerTLS",
    "StickyConfig",
    "StoreConfig",
    "StoredConsumers",
    "TargetConfig",
    "TimeoutConfig",
    "Upstream",
    "UpstreamTLS",
    "Use",
    "WebSocketConfig",
    "When",
    "read_pairs",
]
