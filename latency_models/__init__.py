"""Latency and memory of networks on devices: measure, calibrate, predict with intervals, price whole search spaces."""

from latency_models.calibration import CalibrationOptions, CalibrationReport, calibrate
from latency_models.comparison import Comparison, compare
from latency_models.cost_table import CostTable, compile_cost_table
from latency_models.demands import Demands
from latency_models.designing import Candidate, PlannedMeasurement, next_measurements
from latency_models.devices import DeviceSpec, WeightFormat
from latency_models.devices import get as device
from latency_models.devices import names as device_names
from latency_models.effects import Group, NetworkShape
from latency_models.failures import Infeasible
from latency_models.jobs import Availability, DeviceBackend, MeasurementJob, MeasurementPlan
from latency_models.joint_table import JointCostTable
from latency_models.measuring import measure_all
from latency_models.phases import Pipeline
from latency_models.planning import choose_networks, covering_architectures, distinct_blocks
from latency_models.predictors.block_table import CalibratedPredictor
from latency_models.predictors.roofline import RooflinePredictor
from latency_models.pricing import CostPredictor, predict
from latency_models.profiles import (
    ProfileReading,
    append_record,
    append_records,
    call_label,
    generation_label,
    read_profile,
    scan_profile,
)
from latency_models.rates import FittedRates, RateSample, fit_rates
from latency_models.residency import MemoryTarget, PeakMemory, peak_memory
from latency_models.storage import load_predictor, save_predictor
from latency_models.table_arrays import Scores

__all__ = [
    "Availability",
    "CalibratedPredictor",
    "CalibrationOptions",
    "CalibrationReport",
    "Candidate",
    "Comparison",
    "CostPredictor",
    "CostTable",
    "Demands",
    "DeviceBackend",
    "DeviceSpec",
    "FittedRates",
    "Group",
    "Infeasible",
    "JointCostTable",
    "MeasurementJob",
    "MeasurementPlan",
    "MemoryTarget",
    "NetworkShape",
    "PeakMemory",
    "Pipeline",
    "PlannedMeasurement",
    "ProfileReading",
    "RateSample",
    "RooflinePredictor",
    "Scores",
    "WeightFormat",
    "append_record",
    "append_records",
    "calibrate",
    "call_label",
    "choose_networks",
    "compare",
    "compile_cost_table",
    "covering_architectures",
    "device",
    "device_names",
    "distinct_blocks",
    "fit_rates",
    "generation_label",
    "load_predictor",
    "measure_all",
    "next_measurements",
    "peak_memory",
    "predict",
    "read_profile",
    "save_predictor",
    "scan_profile",
]
