"""Measurements of the gateway beside its peers: `python -m benchmarks NAME`."""
