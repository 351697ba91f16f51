"""Backends that measure: this machine through torch, and a simulated phone."""
