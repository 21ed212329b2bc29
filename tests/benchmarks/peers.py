"""Generated ResNet-20 against ONNX Runtime and OpenVINO in int8 and float32: one process, one thread, batch 1.

    pip install -e ".[peers]"
    python tests/benchmarks/peers.py                              # every runtime at its best on this processor
    ONEDNN_MAX_CPU_ISA=AVX2 python tests/benchmarks/peers.py      # OpenVINO held to AVX2

The runtimes take turns round by round; what is printed is the lower quartile of each one's CPU time for an inference.
ONNX Runtime has no switch for its instruction set: where the processor has AVX-512 VNNI, it uses that.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from automc.compiler.artifact import compile_program
from automc.compression.policy import uniform_policy
from automc.compression.prepare import Preparation
from automc.network.trace import trace
from automc.network.training import normalise
from automc.network.zoo import build_network

ROUNDS = 41
BUILDS = (("avx2", 8, 8), ("avx2", 8, 7), ("avx2", 6, 8), ("avx2", 4, 8), ("avx512vnni", 8, 8))
SHAPE = (3, 32, 32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def our_builds(module: torch.nn.Module, pixels: np.ndarray, folder: Path) -> dict[str, Callable[[], object]]:
    """Libraries of the same network, whole, at several widths, as calls that run one image."""
    network = trace(module, SHAPE, MEAN, STD, "resnet20")
    preparation = Preparation(network, pixels)
    builds = {}
    for target, weight_bits, activation_bits in BUILDS:
        policy = uniform_policy(network, weight_bits=weight_bits, activation_bits=activation_bits)
        name = f"automc {target} W{weight_bits}A{activation_bits}"
        library = compile_program(preparation.program(policy), target, folder / name.replace(" ", "_")).load()
        builds[name] = lambda library=library: library.time(pixels[0], 20).mean()
    return builds


def export(module: torch.nn.Module, pixels: np.ndarray, folder: Path) -> tuple[Path, Path]:
    """The network as ONNX: float32, and quantised to int8 with per-channel weights."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    dense, quantised = folder / "float32.onnx", folder / "int8.onnx"
    sample = normalise(pixels[:1], MEAN, STD).contiguous()
    exported = folder / "exported.onnx"
    torch.onnx.export(module, (sample,), exported, input_names=["x"], output_names=["y"], dynamo=False)
    quant_pre_process(exported, dense, skip_symbolic_shape=True)  # else the quantised convolutions are not fused

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(normalise(pixels[:64], MEAN, STD).contiguous().numpy())

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"x": image[None]}

    quantize_static(
        dense, quantised, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return dense, quantised


def peer_builds(dense: Path, quantised: Path, image: np.ndarray) -> dict[str, Callable[[], object]]:
    """ONNX Runtime and OpenVINO sessions, as calls that run one image."""
    import onnxruntime
    import openvino

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    core = openvino.Core()
    builds: dict[str, Callable[[], object]] = {}
    for kind, path in (("int8", quantised), ("float32", dense)):
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        builds[f"ONNX Runtime {kind}"] = lambda session=session: session.run(None, {"x": image})
        settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(path, "CPU", settings).create_infer_request()
        builds[f"OpenVINO {kind}"] = lambda request=request: request.infer({0: image})
    return builds


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - started) / repeats


def main() -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.manual_seed(0)
    module = build_network("resnet20", 10, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (128, 32, 32, 3), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = our_builds(module, pixels, folder)
        peers = peer_builds(*export(module, pixels, folder), normalise(pixels[:1], MEAN, STD).contiguous().numpy())
        times: dict[str, list[float]] = {label: [] for label in (*ours, *peers)}
        for _ in range(ROUNDS):
            for label, call in ours.items():
                times[label].append(float(call()))  # type: ignore[arg-type]
            for label, call in peers.items():
                times[label].append(cpu_seconds(call, 20))
        macs = trace(module, SHAPE, MEAN, STD, "resnet20").macs
    quartiles = {label: float(np.quantile(values, 0.25)) for label, values in times.items()}
    best = min(value for label, value in quartiles.items() if label in peers and "int8" in label)
    print(f"ResNet-20, {macs / 1e6:.2f} M MACs, one image, one thread, {ROUNDS} rounds")
    for label, seconds in sorted(quartiles.items(), key=lambda entry: entry[1]):
        rate = f"{macs / seconds / 1e9:7.1f} GMAC/s"
        print(f"{label:24s} {seconds * 1e3:8.4f} ms  {rate}  best int8 peer / this {best / seconds:5.2f}")


if __name__ == "__main__":
    main()
