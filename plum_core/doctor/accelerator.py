"""torch and what it can use: vector instructions, the GPU with its driver and memory, Triton, flash-attn."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from plum_core.doctor.finding import Finding
from plum_kernels.compiled import head

GIB = 1 << 30
DRIVER = Path("/proc/driver/nvidia/version")
NEEDED_GPU_GIB = 2.0  # free, for the embedded default
OLDEST_FLASH = (8, 0)  # compute capability that flash-attn 2 is built for


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def look_at_torch() -> Iterator[Finding]:
    """torch, its vector instructions, the GPU, Triton, flash-attn, and how processes talk."""
    vectors = torch.backends.cpu.get_cpu_capability()
    plain = vectors == "DEFAULT"
    yield Finding(
        name="torch",
        value=f"{torch.__version__}, {vectors} on the CPU",
        state="slow" if plain else "ok",
        remedy="this CPU (or its virtual machine) offers no AVX2: move to one that does" if plain else "",
    )
    gpu = torch.cuda.is_available()
    yield gpu_finding()
    if gpu:
        yield from gpu_memory()
    yield triton_finding(gpu)
    yield compiled_finding()
    yield flash_finding(gpu)
    backends = [n for n in ("gloo", "nccl") if getattr(torch.distributed, f"is_{n}_available")()]
    yield Finding(name="processes", value=f"torch.distributed with {', '.join(backends) or 'no back end'}")


def driver_version(path: Path = DRIVER) -> str | None:
    """NVIDIA's kernel driver, whether or not torch can use it."""
    found = re.search(r"Kernel Module[^0-9]*([0-9.]+)", path.read_text()) if path.exists() else None
    return found[1] if found else None


def gpu_finding() -> Finding:
    """The GPUs that torch sees, with driver and CUDA; where it sees none, why."""
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    driver = driver_version()
    if torch.cuda.is_available():
        places = range(torch.cuda.device_count())
        names = [f"{torch.cuda.get_device_name(i)} (sm_{''.join(map(str, capability(i)))})" for i in places]
        return Finding(name="GPU", value=f"{', '.join(names)}; {build}, driver {driver or 'not told'}")
    if torch.version.cuda or torch.version.hip:
        value = f"none that torch sees; {build}, driver {driver or 'none loaded'}"
        remedy = (
            f"give this process the GPU (CUDA_VISIBLE_DEVICES, docker --gpus), or a driver new enough for {build}"
            if driver
            else "models past a few million parameters want a GPU and its driver; models/tiny does not"
        )
        return Finding(name="GPU", value=value, state="slow", remedy=remedy)
    if driver:
        remedy = "pip install a CUDA build of torch over this one: this machine has an NVIDIA driver"
        return Finding(name="GPU", value=f"a CPU build of torch, driver {driver}", state="slow", remedy=remedy)
    remedy = "models past a few million parameters want a GPU and its build of torch; models/tiny does not"
    return Finding(name="GPU", value="none: a CPU build of torch, no driver", state="slow", remedy=remedy)


def capability(place: int) -> tuple[int, int]:
    """Compute capability of a GPU."""
    return torch.cuda.get_device_capability(place)


def gpu_memory() -> Iterator[Finding]:
    """Free memory of each GPU."""
    for place in range(torch.cuda.device_count()):
        free, total = (n / GIB for n in torch.cuda.mem_get_info(place))
        short = free < NEEDED_GPU_GIB
        yield Finding(
            name=f"GPU {place} memory",
            value=f"{free:.1f} of {total:.1f} GiB free",
            state="slow" if short else "ok",
            remedy="end what else is on this GPU (nvidia-smi names it), or choose another with CUDA_VISIBLE_DEVICES"
            if short
            else "",
        )


def flash_finding(gpu: bool) -> Finding:
    """flash-attn is optional, and of use on a GPU that it is built for."""
    version = version_of("flash-attn")
    if version:
        return Finding(name="flash-attn", value=version)
    useful = gpu and capability(0) >= OLDEST_FLASH
    remedy = "pip install 'plum[flash]': long sequences attend faster" if useful else ""
    return Finding(name="flash-attn", value="not installed", state="absent", remedy=remedy)


def triton_finding(gpu: bool) -> Finding:
    """Triton compiles for a GPU with a C compiler at hand; without a GPU its kernels are only interpreted."""
    triton = version_of("triton")
    if triton is None:
        remedy = "pip install triton: without it plain torch computes what the kernels would" if gpu else ""
        return Finding(name="triton", value="not installed", state="slow" if gpu else "absent", remedy=remedy)
    if not gpu:
        return Finding(name="triton", value=f"{triton}; no GPU, so plain torch computes", state="absent")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return Finding(
        name="triton",
        value=f"{triton}, C compiler {compiler or 'not found'}",
        state="ok" if compiler else "missing",
        remedy="" if compiler else "apt-get install gcc: Triton builds its launcher with it",
    )


def compiled_finding() -> Finding:
    """Functions for CPUs that are compiled where they run; without them torch's operators compute the same."""
    lacks = {str(dtype).removeprefix("torch."): head.missing(dtype) for dtype in head.DTYPES}
    have = [name for name, reason in lacks.items() if reason is None]
    reasons = sorted({reason for reason in lacks.values() if reason})
    compiler = "compiler" in "".join(reasons)
    return Finding(
        name="compiled log-probs",
        value="; ".join([*([", ".join(have)] if have else []), *reasons]),
        state="slow" if compiler else "ok" if have else "absent",
        remedy="apt-get install g++: log-probs and their gradients take half the time" if compiler else "",
    )
