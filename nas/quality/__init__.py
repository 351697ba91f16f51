"""Estimators: how good a candidate is. ``capacity`` needs no torch, ``supernet`` and ``held_out_loss`` do."""
