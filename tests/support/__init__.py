"""The real peers that tests and the benchmark talk to: engines, collectors, Prometheus and the sidecar itself."""
