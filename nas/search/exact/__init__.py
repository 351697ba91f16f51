"""Exact Pareto fronts of additive problems, with a certificate; plain NumPy tables in, option indices out."""

from nas.search.exact.joint import JointCosts
from nas.search.exact.problem import AdditiveCosts, AdditiveProblem, SearchCosts
from nas.search.exact.solver import Certificate, ExactFront, solve
from nas.search.exact.tables import CostArrays, SlotSum

__all__ = [
    "AdditiveCosts",
    "AdditiveProblem",
    "Certificate",
    "CostArrays",
    "ExactFront",
    "JointCosts",
    "SearchCosts",
    "SlotSum",
    "solve",
]
