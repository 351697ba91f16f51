"""Exact Pareto fronts of additive problems, with a certificate; plain NumPy tables in, option indices out."""

from nas.search.exact.front import Certificate, ExactFront
from nas.search.exact.joint import JointCosts
from nas.search.exact.problem import AdditiveCosts, AdditiveProblem, SearchCosts
from nas.search.exact.requirements import MemoryRequirement, Requirement
from nas.search.exact.solver import solve
from nas.search.exact.tables import CostArrays, SlotSum
from nas.search.exact.tabulated import TabulatedCosts

__all__ = [
    "AdditiveCosts",
    "AdditiveProblem",
    "Certificate",
    "CostArrays",
    "ExactFront",
    "JointCosts",
    "MemoryRequirement",
    "Requirement",
    "SearchCosts",
    "SlotSum",
    "TabulatedCosts",
    "solve",
]
