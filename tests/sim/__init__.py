"""Deterministic simulation of the replication core: README.md in this folder."""
