"""The machine and the versions that a benchmark ran on."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from metagvae.compute.device import Device

PACKAGES = ("torch", "torchvision", "numpy", "learn2learn", "easyfsl")


def processor() -> str:
    """The processor's name and the instructions that matter here, as the system gives them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown processor"
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in values.get("flags", "").split()]
    name = values.get("model name", "unknown processor")
    return f"{name} (family {values.get('cpu family', '?')}, model {values.get('model', '?')}; {', '.join(flags)})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def describe(device: Device) -> dict[str, Any]:
    """Device, processor, cores, threads and versions; the load of the last minute says who else was at work."""
    gpu = torch.cuda.get_device_name(device.device) if device.device.type == "cuda" else None
    return {
        "device": gpu or processor(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": "bfloat16" if device.autocast else "float32",
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: _version(name) for name in PACKAGES},
    }
