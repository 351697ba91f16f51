"""A run of every stage, as small as the stages allow: what it finds is worthless, that it holds together is not."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SMALL_RUN = """\
run: {name: small, seed: 3, directory: DIRECTORY}
space: {name: tiny, version: 1}
scenario: {frames: 8, height: 32, width: 32, denoising_steps: 4, precision: float32}
device: {name: host-cpu, threads: 1}
budget: {latency_share: 0.6}
phases: {text_encoder: {type: profiled}, decoder: {type: profiled}, overhead: {type: profiled}}
profile: {networks: 10, passes: 1, warmup: 1, seconds: 0.004, network_seconds: 0.05}
calibrate: {folds: 5}
search:
  engine: {type: optuna, sampler: nsga2, population: 4}
  evaluations: 9
  batch: 3
quality:
  type: supernet
  clips: 32
  held_out_clips: 18
  options: {loop: {steps: 6, batch_size: 4, checkpoint_every: 2, log_every: 1}}
train:
  data: {type: procedural, clips: 32}
  teacher: {loop: {steps: 6, batch_size: 4, checkpoint_every: 2, log_every: 1}}
  distillation: {loop: {steps: 4, batch_size: 4, checkpoint_every: 2, log_every: 1}}
  collection: {num_clips: 8, substeps: 2}
  trajectory: {loop: {steps: 4, batch_size: 4, checkpoint_every: 2, log_every: 1}}
  adversarial: {loop: {steps: 4, batch_size: 4, checkpoint_every: 2, log_every: 1}}
  evaluation: {steps: 2, num_clips: 18, num_few_step_clips: 18, feature_steps: 0}
export: {minimum_os: ios18}
closed_loop: {networks: 2}
report: {title: Small run}
"""


def nas(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "nas", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def environment() -> dict[str, str]:
    """One thread, so that tests beside each other do not slow each other down."""
    return os.environ | {"OMP_NUM_THREADS": "1"}
