"""What a measurement ran on: processor or GPU, threads, versions. A time without these means nothing."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numba", "triton", "transformers", "numpy")


@dataclass(frozen=True)
class Machine:
    """One machine as a benchmark saw it.

    Attributes:
        processor: the CPU's model.
        device: the GPU's name, or "cpu".
        cores: how many cores this process may use.
        threads: how many threads PyTorch and Numba were given.
        system: operating system and architecture.
        versions: of Python and of each package that computes; absent ones are left out.
    """

    processor: str
    device: str
    cores: int
    threads: int
    system: str
    versions: dict[str, str]

    def __str__(self) -> str:
        where = self.processor if self.device == "cpu" else f"{self.device} ({self.processor})"
        return f"{where}, {counted(self.threads, 'thread')} on {counted(self.cores, 'core')}, {self.system}"

    @property
    def slug(self) -> str:
        """A file name: the device and the number of threads."""
        name = self.processor if self.device == "cpu" else self.device
        plain = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-")
        return f"{plain}_{self.threads}t"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def counted(number: int, thing: str) -> str:
    """1 thread, 2 threads."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def this_machine(device: str = "cpu") -> Machine:
    """The machine that this process runs on."""
    found = {name: _version(name) for name in PACKAGES}
    return Machine(
        processor=processor(),
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        system=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version()} | {name: text for name, text in found.items() if text},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def processor() -> str:
    """The CPU's model, as the operating system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = processor_name(cpuinfo.read_text())
        if found:
            return found
    return platform.processor() or platform.machine() or "unknown CPU"


def processor_name(cpuinfo: str) -> str:
    """The model in the text of Linux's /proc/cpuinfo; empty if it has none."""
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if not named:
        return ""
    # Virtual machines hide the model behind the family's name: family and model number tell generations apart.
    numbers = [re.search(rf"^{key}\s*:\s*(\d+)$", cpuinfo, re.MULTILINE) for key in ("cpu family", "model")]
    family = " family {} model {}".format(*(number[1] for number in numbers if number)) if all(numbers) else ""
    name = named[1].strip()
    return name if any(character.isdigit() for character in name) else name + family


def usable_cores() -> int:
    """Cores that this process may run on, which is fewer than there are in many containers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Gives PyTorch and Numba the same number of threads, and gives back what they had."""
    import numba

    most = vars(numba.config)["NUMBA_NUM_THREADS"]  # set at run time, so a type checker does not see it
    if threads is not None and not 1 <= threads <= most:
        raise ValueError(f"threads: expected 1 to {most} on this machine, got {threads}")
    before = torch.get_num_threads(), numba.get_num_threads()
    wanted = threads or min(before)
    torch.set_num_threads(wanted)
    numba.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
