"""Bytes to events: incremental decoders of what clients and engines send, pure."""
