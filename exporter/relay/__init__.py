"""The data plane: the only thing between clients and the engine.

1. Per read: the moment first, then the bytes go on, then they are understood.
2. A client that leaves takes its engine connection with it, at once.
3. Whoever is slow stops the other side; nothing is buffered without a limit.
4. Nothing here waits for the observer, and nothing of the observer's (Prometheus, OpenTelemetry, FastAPI) is imported.
"""
