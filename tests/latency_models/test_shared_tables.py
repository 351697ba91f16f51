"""Published tables become records with source and licence per row; samples have the layout and a cited row or two."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from latency_models.importers import ImportOptions, ImportResult, detect, read_file
from latency_models.importers.naming import loose_device_name
from nas.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

APPLE_HEADER = (
    "model,device,chip,unit,latency_ms,source,licence,model_size_mb,input_px,width_mult,precision,attention,"
    "end_to_end_s,note,macs_g,params_m,top1,doc_version,section\n"
)
PUBLISHED_HEADER = (
    "model,component,params_M,resolution,batch_or_frames,steps,device,compute_unit,runtime,latency_ms,memory_mb,"
    "source,confidence\n"
)


def read(tmp_path: Path, name: str, text: str, **options: str) -> ImportResult:
    path = tmp_path / name
    path.write_text(text)
    return read_file(path, ImportOptions(**options))  # type: ignore[arg-type]  # only text here


def test_apple_times_keep_source_licence_and_setting(tmp_path: Path) -> None:
    # Made-up rows in the layout of the shared table.
    text = APPLE_HEADER + (
        "UNet,iPhone 15 Pro,A17 Pro,CPU_AND_NE,300.5,example/diffusion,MIT,,512.0,,,SPLIT_EINSUM_V2,7.9,,,,,,\n"
        "toy,iPhone XR,A12,default(all),12,example/zoo,MIT,,224,,,,,,0.4,3.5,,,\n"
        "toy,iPhone XR,A12,GPU,0,example/zoo,MIT,,224,,,,,,,,,,\n"
    )
    result = read(tmp_path, "apple.csv", text)
    step, whole, toy = result.records
    assert (step.subject, step.level, step.samples_ms) == ("UNet, 512 px", "network", (300.5,))
    assert (whole.level, whole.samples_ms) == ("pipeline", (7900.0,))
    assert (step.origin, step.source, step.licence) == ("published", "example/diffusion", "MIT")
    assert step.device.name == "iphone15_pro"
    assert step.conditions is not None
    assert (step.conditions.requested_units, step.conditions.lowering) == ("cpu_and_ne", "einsum")
    assert (toy.device.name, toy.device.compute_unit) == ("iPhone XR", "unknown")
    assert toy.package is not None
    assert (toy.package.parameters, toy.package.macs) == (3_500_000, 400_000_000)
    assert [(problem.line, "got 0.0" in problem.message) for problem in result.problems] == [(4, True)]


def test_device_memory_reads_the_unit_of_each_row(tmp_path: Path) -> None:
    text = "doc_version,section,model,device,backend,unit,value,source,licence\n" + "".join(
        f"0.9,Classification,toy,iOS,Core ML,{unit},{value},example/repo,MIT\n"
        for unit, value in (("MB", "85"), ("GB", "1.9"), ("", "85"), ("it", "3"), ("MB", "-1"))
    )
    result = read(tmp_path, "memory.csv", text)
    assert [record.peak_memory_mb for record in result.records] == [85.0, 1900.0]
    assert [problem.line for problem in result.problems] == [4, 5, 6]


def test_chip_constants_are_figures_and_no_records(tmp_path: Path) -> None:
    rows = "M1,bandwidth,GB/s,60.87,Anemll/anemll-bench,MIT\nM1,x,GB,2.5-3,y,MIT\n"
    text = f"chip,quantity,unit,value,source,licence\n{rows}"
    result = read(tmp_path, "micro.csv", text)
    (figure,) = result.figures
    assert (figure.device, figure.value, figure.unit, figure.line) == ("M1", 60.87, "GB/s", 2)
    assert result.records == ()
    assert "must be a number, with or without a unit, got '2.5-3'" in result.problems[0].message


def test_published_figures_leave_out_recollections_and_keep_failures(tmp_path: Path) -> None:
    text = PUBLISHED_HEADER + (
        'A,"UNet, per step",860,512x512,2,1,iPhone 14 Pro,CPU_AND_NE,"Core ML SPLIT_EINSUM",372,,paper,found\n'
        "B,end-to-end,900,unknown,1,4,iPhone 15 Pro,Neural Engine,Core ML,5000,1200,paper,found-derived\n"
        "C,UNet,,512x512,1,1,iPhone 15 Pro,unknown,Core ML,142,,recollection,memory-unverified\n"
        "D,video VAE decoder (out of memory),,512x512,1,1,iPhone 15 Pro,unknown,Core ML,,,paper,found; out of memory\n"
        "E,UNet,,512x512,1,1,iPhone 15 Pro,unknown,Core ML,,,paper,found\n"
    )
    result = read(tmp_path, "published.csv", text)
    step, whole, failed = result.records
    assert step.subject == "A, UNet, per step, 512x512, 2"
    assert step.conditions is not None
    assert (step.conditions.requested_units, step.conditions.lowering) == ("cpu_and_ne", "einsum")
    assert (whole.level, whole.peak_memory_mb, whole.device.compute_unit) == ("pipeline", 1200.0, "neural_engine")
    assert failed.failure is not None
    assert failed.failure.stage == "out_of_memory"
    assert [problem.line for problem in result.problems] == [4, 6]
    assert "confidence is 'memory-unverified'" in result.problems[0].message


def test_ncnn_runs_are_means_with_threads_and_unit(tmp_path: Path) -> None:
    text = (
        "device,run_id,loop_count,num_threads,powersave,gpu_device,cooling_down,model,min_ms,max_ms,avg_ms\n"
        "Board (2 x A73),1,64,2,0,-1,0.0,squeezenet,11.0,12.0,11.5\n"
        "Board (2 x A73),2,64,1,0,0,0.0,squeezenet,5.0,6.0,5.5\n"
        "Board (2 x A73),2,64,1,0,0,0.0,mobilenet,5.0,6.0,5500\n"
    )
    path = tmp_path / "zoo.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    result = read_file(path, ImportOptions())
    assert detect(path) == "ncnn-zoo"
    assert [(r.device.compute_unit, r.device.threads, r.samples_ms, r.num_runs) for r in result.records] == [
        ("cpu", 2, (11.5,), 64),
        ("gpu", 1, (5.5,), 64),
    ]
    assert result.problems[0].message == "average 5500 is not between minimum 5 and maximum 6"


def test_mlx_and_hat_read_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    operators = {
        "device": ["M1", "M1"],
        "backend": ["mlx_gpu", "cpu"],
        "op": ["Conv2d", "Conv2d"],
        "args": ["dim=8", "dim=8"],
        "ms": [2.5, float("nan")],
    }
    parquet.write_table(pyarrow.table(operators), tmp_path / "mlx_ops.parquet")
    result = read_file(tmp_path / "mlx_ops.parquet", ImportOptions())
    (record,) = result.records
    assert (record.subject, record.level, record.device.compute_unit) == ("Conv2d dim=8", "operation", "gpu")
    assert "1 combinations were not measured" in result.remarks[0]
    features = {"task": ["wmt"], "device": ["cpu_xeon"], "encoder_layer_num": [6.0], "decoder_layer_num": [2.0]}
    times = {f"latency_{what}_{part}": [3.0] for what in ("mean", "std") for part in ("encoder", "decoder")}
    parquet.write_table(pyarrow.table(features | times), tmp_path / "hat_latency.parquet")
    encoder, decoder = read_file(tmp_path / "hat_latency.parquet", ImportOptions()).records
    assert encoder.subject == "HAT wmt encoder encoder_layer_num=6"
    assert decoder.subject == "HAT wmt decoder encoder_layer_num=6,decoder_layer_num=2"


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zoo.csv.gz"
    path.write_bytes(gzip.compress(b"device,model\n" * 100)[:-9])
    with pytest.raises(InputError, match="damaged gzip file"):
        detect(path)


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "mlx.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="no Parquet file"):
        read_file(path, ImportOptions())


def test_conversion_timings_are_load_times(tmp_path: Path) -> None:
    text = (
        "file,backend,coremltools_major,attention,compute_unit,precision,quantize,batch_size,resolution,"
        "graph_capture_s,convert_s,first_load_compile_s,pipeline_load_s,status\n"
        "a.json,apple_coreml,8,SPLIT_EINSUM_V2,CPU_AND_NE,,4,,512,30,44,1.25,,ok\n"
        "b.json,apple_coreml,8,ORIGINAL,CPU_AND_GPU,,,,512,,,,,failed: out of disk\n"
    )
    done, failed = read(tmp_path, "timings.csv", text).records
    assert done.load is not None
    assert done.load.first_load_ms == 1250.0
    assert done.package is not None
    assert done.package.weight_bits == 4.0
    assert failed.failure is not None
    assert failed.failure.message == "failed: out of disk"


def test_back_end_estimates_are_shares_of_a_plan(tmp_path: Path) -> None:
    text = (
        "op_location,op_type,selected_backend,est_time_ane,est_time_bnns,est_time_classic_cpu,est_time_mps_graph,"
        "invalid_reason\n"
        "conv:1,ios17.conv,ane,0.03,0.4,0.5,0.1,\ncast:2,ios17.cast,bnns,,0.01,0.01,0.02,Invalid fp32\n"
    )
    (record,) = read(tmp_path, "ops.csv", text, device="iphone15_pro").records
    assert [(op.preferred, op.supported, op.reason) for op in record.plan] == [
        ("neural_engine", ("neural_engine", "cpu", "gpu"), ""),
        ("cpu", ("cpu", "gpu"), "Invalid fp32"),
    ]
    assert [op.cost_share for op in record.plan] == pytest.approx([0.75, 0.25])


def test_chunk_times_take_the_unit_their_row_states(tmp_path: Path) -> None:
    text = "Mode,steady tok/s,c1,c2,c3,sum\nTwo,34,5.6,12.2,0.0,17.8 ms\nThree,33,5.8,6.8,8.2,20.8\n"
    index = "file,doc,section,rows\nchunks.csv,docs/BENCH.md,iPhone 17 Pro (A19 Pro) measured,2\n"
    (tmp_path / "index.csv").write_text(index)
    result = read(tmp_path, "chunks.csv", text)
    assert {loose_device_name("iPhone 17 Pro")} == {record.device.name for record in result.records}
    assert [(record.subject, record.samples_ms) for record in result.records] == [
        ("chunks: Two, chunk c1", (5.6,)),
        ("chunks: Two, chunk c2", (12.2,)),
    ]
    assert [problem.line for problem in result.problems] == [2, 3, 3, 3]
    assert result.problems[1].message == "c1 5.8 has no unit"


def test_guide_tables_give_every_number_with_its_unit(tmp_path: Path) -> None:
    folder = tmp_path / "ane_guide"
    folder.mkdir()
    # The layout of c10-constants (CC BY 4.0), with its first row.
    first = '"Convolution-stack efficiency, engine",2063 GFLOP/s/W,M1/H13'
    text = f'Quantity,Value,Silicon\n{first}\nName,"4 (base)",M5\nRule,x,M5\n'
    result = read(folder, "table.csv", text)
    assert [(f.quantity, f.value, f.unit, f.device) for f in result.figures] == [
        ("Convolution-stack efficiency, engine (Value)", 2063.0, "GFLOP/s/W", "M1/H13"),
        ("Name (Value)", 4.0, "(base)", "M5"),
    ]
    assert "1 cells begin with no number" in result.remarks[0]


def test_rooflines_of_chips_are_figures_with_units(tmp_path: Path) -> None:
    header = "chip,peak_fp16_gemm_tflops,bandwidth_gbps,ridge_flop_per_byte,peak_perf_per_w_gflops\n"
    result = read(tmp_path, "rooflines.csv", header + "Apple M1,2.7,0.86,3149,442\n")
    assert [(figure.value, figure.unit) for figure in result.figures] == [
        (2.7, "TFLOP/s"),
        (0.86, "GB/s"),
        (3149.0, "FLOP/byte"),
        (442.0, "GFLOP/s/W"),
    ]
