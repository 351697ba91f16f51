"""Figures of other predictors as their authors print them, and the device sets they belong to.

All are Spearman correlations, origin ``published``; none was measured here. Sources:

- HELP (Lee et al., NeurIPS 2021, arXiv:2106.08630), tables of the paper, 10 measured networks.
- NASFLAT (Akhauri and Abdelfattah, MLSys 2024, arXiv:2403.02446), its own, HELP's and MultiPredict's figures from the
  plotting script of its repository (abdelfattah-lab/nasflat_latency), 20 measured networks; device sets from its
  ``device_task_list.py``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A published device set: train on ``sources``, predict ``targets``."""

    name: str
    space: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    nasflat: float
    help: float
    multipredict: float


HELP_NB201 = {
    "titan_rtx_256": 0.987,
    "gold_6226": 0.989,
    "pixel2": 0.802,
    "raspi4": 0.890,
    "eyeriss": 0.940,
    "fpga": 0.985,
}
HELP_FBNET = {"raspi4": 0.887, "eyeriss": 0.943, "fpga": 0.892}
HELP = {"nb201": HELP_NB201, "fbnet": HELP_FBNET}


def _task(name: str, sources: str, targets: str, figures: tuple[float, float, float]) -> Task:
    return Task(
        name=name,
        space="nb201" if name.startswith("N") else "fbnet",
        sources=tuple(sources.split()),
        targets=tuple(targets.split()),
        nasflat=figures[0],
        help=figures[1],
        multipredict=figures[2],
    )


_ADRENO_612 = "mobile_gpu_snapdragon_675_adreno_612_int8"
_ADRENO_640 = "mobile_gpu_snapdragon_855_adreno_640_int8"
_HEXAGON_685 = "mobile_dsp_snapdragon_675_hexagon_685_int8"
_HEXAGON_690 = "mobile_dsp_snapdragon_855_hexagon_690_int8"
_HELP_PHONES = "silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 samsung_s7"

TASKS = (
    _task(
        "ND",
        f"1080ti_1 1080ti_32 1080ti_256 {_HELP_PHONES}",
        "titan_rtx_256 gold_6226 fpga pixel2 raspi4 eyeriss",
        (0.959, 0.948, 0.930),
    ),
    _task(
        "NA",
        "titan_rtx_1 titan_rtx_32 titanxp_1 2080ti_1 titanx_1 1080ti_1 titanx_32 titanxp_32 2080ti_32 1080ti_32 "
        "gold_6226 samsung_s7 silver_4114 gold_6240 silver_4210r samsung_a50 pixel2",
        "eyeriss desktop_gpu_gtx_1080ti_fp32 embedded_tpu_edge_tpu_int8",
        (0.893, 0.410, 0.820),
    ),
    _task(
        "N1",
        f"embedded_tpu_edge_tpu_int8 eyeriss {_ADRENO_612} {_ADRENO_640} pixel3",
        "1080ti_1 titan_rtx_32 titanxp_1 2080ti_32 titan_rtx_1",
        (0.967, 0.604, 0.970),
    ),
    _task(
        "N2",
        "1080ti_1 1080ti_32 titanx_32 titanxp_1 titanxp_32",
        f"embedded_gpu_jetson_nano_fp16 embedded_tpu_edge_tpu_int8 {_HEXAGON_685} {_HEXAGON_690} pixel3",
        (0.857, 0.509, 0.757),
    ),
    _task(
        "N3",
        f"desktop_gpu_gtx_1080ti_fp32 embedded_gpu_jetson_nano_fp16 eyeriss {_HEXAGON_685} {_ADRENO_640}",
        "1080ti_1 2080ti_1 titanxp_1 2080ti_32 titanxp_32",
        (0.962, 0.729, 0.947),
    ),
    _task(
        "N4",
        "desktop_cpu_core_i7_7820x_fp32 embedded_gpu_jetson_nano_fp32 embedded_tpu_edge_tpu_int8 eyeriss "
        f"mobile_cpu_snapdragon_855_kryo_485_int8 {_HEXAGON_685} {_HEXAGON_690} {_ADRENO_612} {_ADRENO_640} pixel2",
        "1080ti_1 2080ti_1 titan_rtx_1",
        (0.959, 0.746, 0.952),
    ),
    _task(
        "FD",
        f"1080ti_1 1080ti_32 1080ti_64 {_HELP_PHONES}",
        "titanx_1 titanx_32 titanx_64 gold_6240",
        (0.961, 0.910, 0.960),
    ),
    _task(
        "FA",
        "1080ti_1 1080ti_32 1080ti_64 2080ti_1 2080ti_32 2080ti_64 titan_rtx_1 titan_rtx_32 titan_rtx_64 titanx_1 "
        "titanx_32 titanx_64 titanxp_1 titanxp_32 titanxp_64",
        "gold_6226 essential_ph_1 samsung_s7 pixel2",
        (0.577, 0.370, 0.450),
    ),
    _task(
        "F1",
        "2080ti_1 essential_ph_1 silver_4114 titan_rtx_1 titan_rtx_32",
        "eyeriss fpga raspi4 samsung_a50 samsung_s7",
        (0.809, 0.793, 0.756),
    ),
    _task(
        "F2",
        "essential_ph_1 gold_6226 gold_6240 pixel3 raspi4",
        "1080ti_1 1080ti_32 2080ti_32 titan_rtx_1 titanxp_1",
        (0.871, 0.543, 0.567),
    ),
    _task(
        "F3",
        "essential_ph_1 pixel2 pixel3 raspi4 samsung_s7",
        "1080ti_1 1080ti_32 2080ti_1 titan_rtx_1 titan_rtx_32",
        (0.814, 0.413, 0.434),
    ),
    _task(
        "F4",
        "1080ti_64 2080ti_1 eyeriss gold_6226 gold_6240 raspi4 samsung_s7 silver_4210r titan_rtx_1 titan_rtx_32",
        "1080ti_1 pixel2 essential_ph_1",
        (0.734, 0.799, 0.763),
    ),
)
