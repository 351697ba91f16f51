"""Run directories: layout, lock, stage states, staleness, and the journal of a search."""

from nas.runs.directory import STAGES, RunDirectory, StageState
from nas.runs.front import FrontFile, read_front, write_front
from nas.runs.journal import Journal

__all__ = ["STAGES", "FrontFile", "Journal", "RunDirectory", "StageState", "read_front", "write_front"]
