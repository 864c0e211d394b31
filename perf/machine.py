"""What a figure was measured on: part of every report."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> str:
    """CPU with its generation, which a virtual machine's name of it leaves out; cores, memory, kernel; one line."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    cpu = {name.strip(): value.strip() for name, _, value in lines}
    model = f"{cpu.get('model name', 'CPU')} (family {cpu.get('cpu family', '?')}, model {cpu.get('model', '?')})"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB, {platform.system()} {platform.release()}"
