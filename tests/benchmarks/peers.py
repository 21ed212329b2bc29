"""Generated networks against ONNX Runtime, OpenVINO and LiteRT: one process, one thread, batch 1.

    pip install -e ".[peers]"
    python -m tests.benchmarks.peers                     # every runtime at its best on this processor
    python -m tests.benchmarks.peers --avx2              # the runtimes held to AVX2
    python -m tests.benchmarks.peers --networks resnet8 --rounds 101
    python -m tests.benchmarks.peers --avx2 --networks resnet20 --program winner/program.safetensors

The runtimes take turns; of each, the lower quartile of the CPU time of an inference counts. Ratios are the time of the
best peer in int8, and in float32, over ours, from one run. Weights are random: what is computed does not depend on
them, but for the choice of the instructions. Ours takes the image as bytes, LiteRT as quantised bytes, the others as
float32. `--program` adds a compressed form of the network, whose peers still compute all of it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automc.compiler.artifact import compile_program
from automc.compiler.targets import TARGETS, runs_here
from automc.compression.policy import uniform_policy
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.network.trace import trace
from automc.network.training import normalise
from automc.network.zoo import build_network, zoo
from tests.benchmarks.held import hold_to_avx2

NETWORKS = ("resnet8", "resnet20", "ds_cnn", "mobilenetv2_100_224")
BUILDS = (("avx512vnni", 8, 8), ("avx2", 8, 8), ("avx2", 8, 7), ("avx2", 4, 8))
FLOAT = "float32"
KINDS = ("int8", FLOAT)
SAMPLE_SECONDS = 0.005  # of one runtime in one round, at least

Call = Callable[[], object]
Timer = Callable[[], float]


def programs(network_name: str, pixels: NDArray[np.uint8]) -> Mapping[tuple[int, int], Program]:
    """The network whole, at each of the widths of `BUILDS`."""
    torch.manual_seed(0)
    entry = zoo()[network_name]
    module = build_network(network_name, entry.classes, entry.shape[0])
    channels = entry.shape[0]
    network = trace(module, entry.shape, (0.45,) * channels, (0.25,) * channels, network_name)
    preparation = Preparation(network, pixels)
    widths = {(weights, activations) for _, weights, activations in BUILDS}
    return {
        width: preparation.program(uniform_policy(network, weight_bits=width[0], activation_bits=width[1]))
        for width in sorted(widths, reverse=True)
    }


def our_timers(
    found: Mapping[tuple[int, int], Program], compressed: Program | None, pixels: NDArray[np.uint8], folder: Path
) -> dict[str, Timer]:
    """Libraries, as what takes the CPU time of one image."""
    timers: dict[str, Timer] = {}
    builds = [
        (target, f"W{weights}A{activations}", found[weights, activations]) for target, weights, activations in BUILDS
    ]
    if compressed is not None:
        builds += [(target, "compressed", compressed) for target in dict.fromkeys(build[0] for build in BUILDS)]
    for target, form, program in builds:
        name = f"automc {target} {form}"
        if not runs_here(TARGETS[target]):
            print(f"{name}: this processor does not run it")
            continue
        library = compile_program(program, target, folder / name.replace(" ", "_")).load()
        # One of its samples takes 50 microseconds at least.
        repeats = max(1, round(SAMPLE_SECONDS / max(50e-6, float(library.time(pixels[0], 3).min()))))
        timers[name] = lambda library=library, repeats=repeats: float(library.time(pixels[0], repeats).mean())
    return timers


def onnx_models(network_name: str, pixels: NDArray[np.uint8], folder: Path) -> tuple[Path, Path, NDArray[np.float32]]:
    """The network as ONNX in float32, quantised to int8 by ONNX Runtime with per-channel weights, and an input."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    torch.manual_seed(0)
    entry = zoo()[network_name]
    module = build_network(network_name, entry.classes, entry.shape[0])
    exported, dense, quantised = (folder / f"{stage}.onnx" for stage in ("exported", "dense", "int8"))
    images = normalise(pixels, (0.45,) * entry.shape[0], (0.25,) * entry.shape[0]).contiguous()
    torch.onnx.export(module, (images[:1],), exported, input_names=["x"], output_names=["y"], dynamo=False)
    quant_pre_process(exported, dense, skip_symbolic_shape=True)  # else the quantised convolutions are not fused

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(images.numpy())

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.images, None)
            return None if image is None else {"x": image[None]}

    quantize_static(
        dense, quantised, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return dense, quantised, images[:1].numpy()


def onnx_runtime(model: Path, image: NDArray[np.float32]) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", image)
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding)


def open_vino(model: Path, image: NDArray[np.float32]) -> Call:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(image, shared_memory=True))
    return lambda: request.infer(share_outputs=True)


def litert(program: Program) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    from tests.benchmarks.litert import litert_model

    interpreter = Interpreter(model_content=litert_model(program), num_threads=1)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    interpreter.set_tensor(given["index"], np.random.default_rng(0).integers(-128, 128, given["shape"], np.int8))
    return interpreter.invoke


def peer_builds(network_name: str, program: Program, pixels: NDArray[np.uint8], folder: Path) -> dict[str, Call]:
    """The runtimes that are installed, as calls that run one image; those that are not are told."""
    makers: dict[str, Callable[[], Call]] = {"LiteRT": lambda: litert(program)}
    try:
        dense, quantised, image = onnx_models(network_name, pixels, folder)
    except ImportError as error:
        print(f"no ONNX Runtime and OpenVINO: {error}")
    else:
        makers |= {
            "ONNX Runtime": lambda: onnx_runtime(quantised, image),
            "OpenVINO": lambda: open_vino(quantised, image),
            f"ONNX Runtime {FLOAT}": lambda: onnx_runtime(dense, image),
            f"OpenVINO {FLOAT}": lambda: open_vino(dense, image),
        }
    builds: dict[str, Call] = {}
    for label, make in makers.items():
        try:
            builds[label] = make()
        except ImportError as error:
            print(f"no {label}: {error}")
    return builds


def timer(call: Call) -> Timer:
    """What takes the CPU time of one call, over as many as a sample needs."""
    for _ in range(3):
        call()
    repeats = max(1, round(SAMPLE_SECONDS / _seconds(call, 3)))
    return lambda: _seconds(call, repeats)


def _seconds(call: Call, repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - started) / repeats


def compare(network_name: str, compressed: Program | None, rounds: int, held: str) -> None:
    """Print the table of one network."""
    channels, height, width = zoo()[network_name].shape
    count = 4 if height > 100 else 64
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        found = programs(network_name, pixels)
        peers = {
            label: timer(call) for label, call in peer_builds(network_name, found[8, 8], pixels, Path(name)).items()
        }
        timers = {**peers, **our_timers(found, compressed, pixels, Path(name))}
        times = np.array([[take() for take in timers.values()] for _ in range(rounds)])
    quartiles = dict(zip(timers, np.quantile(times, 0.25, axis=0), strict=True))
    best = {kind: min(quartiles[label] for label in peers if (FLOAT in label) == (kind == FLOAT)) for kind in KINDS}
    macs = found[8, 8].macs
    print(f"\n{network_name}, {macs / 1e6:.2f} M MACs, peers {held}, {rounds} rounds")
    for label, seconds in sorted(quartiles.items(), key=lambda entry: entry[1]):
        rate = f"{macs / seconds / 1e9:7.1f} GMAC/s"
        ratios = "  ".join(f"best {kind} peer / this {best[kind] / seconds:5.2f}" for kind in KINDS)
        print(f"{label:24s} {seconds * 1e3:8.4f} ms  {rate}  {ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avx2", action="store_true", help="hold the other runtimes to AVX2")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--program", type=Path, help="a compressed form of the only network named, to time as well")
    parser.add_argument("--rounds", type=int, default=41)
    arguments = parser.parse_args()
    if arguments.program is not None and len(arguments.networks) != 1:
        parser.error("--program belongs to one network: name it by --networks")
    compressed = None if arguments.program is None else Program.load(arguments.program)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        if arguments.avx2:
            os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
            hold_to_avx2(("onnxruntime", "ai_edge_litert"), Path(folder))
        for network_name in arguments.networks:
            compare(network_name, compressed, arguments.rounds, "held to AVX2" if arguments.avx2 else "at their best")


if __name__ == "__main__":
    main()
