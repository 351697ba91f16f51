"""Exact Pareto fronts of additive problems, with a certificate; plain NumPy tables in, option indices out."""

from nas.search.exact.problem import AdditiveCosts, AdditiveProblem, CostArrays, SlotSum
from nas.search.exact.solver import Certificate, ExactFront, solve

__all__ = ["AdditiveCosts", "AdditiveProblem", "Certificate", "CostArrays", "ExactFront", "SlotSum", "solve"]
