"""linear_logprob beside what one writes without it: log_softmax of all logits, then gather.

    python kernels/benchmarks/linear_logprob.py                        # the embedded policy's head and a 32k one
    python kernels/benchmarks/linear_logprob.py --shapes 2048x896x151936 --dtypes float32 bfloat16 --repeats 3
    python kernels/benchmarks/linear_logprob.py --methods naive compiled trl torch    # beside peers

Checks first that all agree, then times forward and backward of each in turn (medians, one process, CPU seconds on
a CPU), measures what each holds at its peak beyond its inputs, gradients included, and writes a dated table to
results/. The first method is the one that the others are held to and compared with.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import torch
import tyro
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed
from plum_kernels import linear_logprob

Method = Callable[[Tensor, Tensor, Tensor], Tensor]
CLEAR_PEAK = "5"  # what Linux wants in clear_refs to forget a process's peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is measured."""

    shapes: tuple[str, ...] = ("4000x96x1536", "1024x896x32000")  # rows x width x vocabulary
    dtypes: tuple[str, ...] = ("float32",)
    methods: tuple[str, ...] = ("naive", "blocked", "compiled")  # of naive, blocked, compiled, triton, trl, torch
    repeats: int = 5
    threads: int = 1
    frozen_head: bool = False  # no gradient of the weight
    device: str = "cpu"
    seed: int = 0
    results: Path = field(default_factory=lambda: Path(__file__).parent / "results")


def naive(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight).float()
    return logits.log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)


def ours(backend: str) -> Method:
    return lambda hidden, weight, targets: linear_logprob(hidden, weight, targets, backend=backend).logp


def trl(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    from trl.kernels import ChunkedLogProbFunction

    logp: Tensor = ChunkedLogProbFunction.apply(hidden, weight, None, targets, 1.0, 32768, None, 1.0, ())[0]
    return logp


def torch_chunked(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return -torch.nn.functional.linear_cross_entropy(hidden, weight, targets, reduction="none")


METHODS: dict[str, Method] = {
    "naive": naive,
    **{name: ours(name) for name in ("blocked", "compiled", "triton")},
    "trl": trl,
    "torch": torch_chunked,
}


def make_inputs(shape: str, dtype: torch.dtype, config: Config) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, width, vocabulary = (int(n) for n in shape.split("x"))
    torch.manual_seed(config.seed)
    hidden = torch.randn(rows, width).to(dtype).to(config.device).requires_grad_()
    weight = (torch.randn(vocabulary, width) * width**-0.5 * 3).to(dtype).to(config.device)
    targets = torch.randint(vocabulary, (rows,)).to(config.device)
    return hidden, weight.requires_grad_(not config.frozen_head), targets, torch.randn(rows).to(config.device)


def run(method: Method, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    hidden, weight, targets, upstream = inputs
    hidden.grad = weight.grad = None
    logp = method(hidden, weight, targets)
    logp.backward(upstream)
    named = {"logp": logp.detach(), "dhidden": hidden.grad, "dweight": weight.grad}
    return {name: value for name, value in named.items() if value is not None}


def check(inputs: tuple[Tensor, ...], methods: dict[str, Method]) -> None:
    """Refuse to time what does not agree: relative error of each result, by norm."""
    tolerance = 1e-4 if inputs[0].dtype == torch.float32 else 3e-2
    first, *others = methods
    wanted = run(methods[first], inputs)
    for method in others:
        for name, got in run(methods[method], inputs).items():
            error = ((got.float() - wanted[name].float()).norm() / wanted[name].float().norm()).item()
            if not error <= tolerance:
                raise SystemExit(f"{name} of {method} is {error:.1e} off, allowed {tolerance:.0e}: nothing was timed")


def status_mib(key: str) -> float:
    """A line of /proc/self/status, as VmHWM (peak) or VmRSS (now)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {key} in /proc/self/status")


def peak_mib(work: Callable[[], object], device: str) -> float:
    """Memory at the peak beyond what was held before ``work``; gradients of the inputs are part of it."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # pages that are free but kept would be taken again unseen
    Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    before = status_mib("VmRSS")
    work()
    return status_mib("VmHWM") - before


def seconds(work: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(shape: str, dtype: str, config: Config) -> list[dict[str, object]]:
    inputs = make_inputs(shape, getattr(torch, dtype), config)
    methods = {name: METHODS[name] for name in config.methods}
    check(inputs, methods)
    times: dict[str, list[float]] = {name: [] for name in methods}
    peaks: dict[str, float] = {}
    for name, method in methods.items():
        inputs[0].grad = inputs[1].grad = None
        peaks[name] = peak_mib(lambda method=method: run(method, inputs), config.device)
    for _ in range(config.repeats):  # in turn, so that a slow minute hits both
        for name, method in methods.items():
            times[name].append(seconds(lambda method=method: run(method, inputs), config.device))
    return [
        {
            "shape": shape,
            "dtype": dtype,
            "method": name,
            "seconds": statistics.median(times[name]),
            "spread": (max(times[name]) - min(times[name])) / statistics.median(times[name]),
            "time_ratio": statistics.median(times[name]) / statistics.median(times[config.methods[0]]),
            "peak_mib": peaks[name],
            "memory_ratio": peaks[name] / peaks[config.methods[0]],
        }
        for name in methods
    ]


def machine(config: Config) -> dict[str, object]:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    device = model if config.device == "cpu" else torch.cuda.get_device_name()
    return {
        "device": device,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def table(rows: list[dict[str, object]], about: dict[str, object], config: Config) -> str:
    first = config.methods[0]
    head = "fwd + bwd to hidden" + ("" if config.frozen_head else " and weight")
    lines = [
        f"{about['device']} ({about['capability']}), {config.threads} thread(s), load {about['load']:.1f}, "
        f"torch {about['torch']}, {about['date']}; {head}; medians of {config.repeats}, in turn",
        "",
        f"| rows x width x vocabulary | dtype | method | CPU s | spread | x {first} | peak MiB | x {first} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        time, memory = f"{r['seconds']:.3f} | {r['spread']:.0%}", f"{r['peak_mib']:.0f}"
        figures = f"{time} | {r['time_ratio']:.2f} | {memory} | {r['memory_ratio']:.3f}"
        lines.append(f"| {r['shape']} | {r['dtype']} | {r['method']} | {figures} |")
    return "\n".join(lines)


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    about = machine(config)
    rows = [row for shape in config.shapes for dtype in config.dtypes for row in measure(shape, dtype, config)]
    text = table(rows, about, config)
    print(text)
    config.results.mkdir(parents=True, exist_ok=True)
    kind = "frozen-head" if config.frozen_head else "trained-head"
    kind += "-peers" if {"trl", "torch"} & set(config.methods) else ""
    name = f"{about['date']}-linear-logprob-{config.device}-{kind}"
    settings = {key: value for key, value in asdict(config).items() if key != "results"}
    (config.results / f"{name}.json").write_text(json.dumps({**about, "config": settings, "rows": rows}, indent=1))
    (config.results / f"{name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
