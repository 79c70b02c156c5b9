"""Containerized multi-node network testbeds: one lab file, a live network, and a test for every claim about it."""

__version__ = "0.1.0"
