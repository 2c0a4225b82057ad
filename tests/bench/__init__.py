"""Benchmarks: what the sidecar costs, beside peers on the same machine in the same minutes."""
