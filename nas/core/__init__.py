"""Kernel: value types, protocols and files that every other package shares; imports none of them."""
