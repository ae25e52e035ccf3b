"""`hybridlab doctor`: what this machine has, and a remedy for what it lacks.

Each probe is a function of plain facts (see facts.py), so that a test can describe any machine. "fail" is what stops the
course, "warn" what makes it slower or shorter.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from hybridlab.cli.facts import Facts

PYTHONS = ((3, 11), (3, 13))
GIB = 2**30
LITTLE_MEMORY, LITTLE_DISK = 3.5 * GIB, GIB / 2  # a machine sold with 4 GiB reports a little less
# Without these a chapter does not run; without the others something smaller is missing.
REQUIRED = (
    "torch",
    "numpy",
    "numba",
    "einops",
    "jaxtyping",
    "safetensors",
    "jupyterlab",
    "ipykernel",
    "ipywidgets",
    "matplotlib",
)
WANTED = ("triton", "anywidget", "nbval", "pytest", "tokenizers")
# Colab's kernel is built on its own versions of these: others would break it.
COLABS_OWN = ("jupyterlab", "ipykernel", "ipywidgets")
INTERPRETER = "restart Python and set TRITON_INTERPRET=1 before anything imports triton"


class Finding(NamedTuple):
    """One line: `status` is "ok", "warn" or "fail"; the last two have a remedy."""

    subject: str
    status: str
    found: str
    remedy: str = ""


def ok(subject: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(subject, "ok", found)


def warn(subject: str, found: str, remedy: str) -> Finding:
    """The course runs, with less."""
    return Finding(subject, "warn", found, remedy)


def fail(subject: str, found: str, remedy: str) -> Finding:
    """The course does not run."""
    return Finding(subject, "fail", found, remedy)


def install(facts: Facts) -> str:
    """The line that installs everything, as this platform needs it."""
    if _on_colab(facts):
        return "%pip install -c constraints.txt -e . in the clone, then restart the runtime"
    if facts.system == "Windows":
        return "pip install -c constraints.txt -e .[course] in the repository"
    return "pip install -c constraints.txt -e '.[course]' in the repository (`make lab` does it)"


def _on_colab(facts: Facts) -> bool:
    return "COLAB_RELEASE_TAG" in facts.environment


def python(facts: Facts) -> Finding:
    """A version that the package supports."""
    found = ".".join(map(str, facts.python))
    if PYTHONS[0] <= facts.python[:2] <= PYTHONS[1]:
        return ok("python", found)
    return fail("python", found, "use Python 3.11, 3.12 or 3.13: make a new environment with one of them")


def course(facts: Facts) -> Finding:
    """The chapters are beside the package, or around the current folder."""
    if facts.root and not facts.root_writable:
        remedy = "copy the folder to a place of your own, and start there"
        return warn("course", f"{facts.root} is read-only: notebooks run, but cannot be saved", remedy)
    if facts.root:
        return ok("course", facts.root)
    return warn("course", "no chapters here (installed from a wheel?)", "clone the repository and run this inside it")


def constraints(facts: Facts) -> Finding:
    """The exact versions that the course is tested with are known."""
    if facts.pinned is not None:
        return ok("constraints.txt", f"{len(facts.pinned)} exact versions")
    return warn("constraints.txt", "not here: versions cannot be compared", "run this in a clone of the repository")


def memory(facts: Facts) -> Finding:
    """Room for a chapter beside JupyterLab and a browser."""
    if facts.memory_bytes is None:
        return ok("memory", "unknown")
    found = f"{facts.memory_bytes / GIB:.1f} GiB"
    if facts.memory_bytes >= LITTLE_MEMORY:
        return ok("memory", found)
    needs = "a chapter takes up to 1 GiB, a browser as much"
    return warn("memory", f"{found}: {needs}", "shut a chapter's kernel down before you open the next")


def disk(facts: Facts) -> Finding:
    """Room for saved notebooks and compiled kernels."""
    found = f"{facts.free_bytes / GIB:.1f} GiB free"
    if facts.free_bytes >= LITTLE_DISK:
        return ok("disk", found)
    return warn("disk", f"{found}: saving and compiling may fail", "free some; `pip cache purge` often gives back the most")


def packages(facts: Facts) -> list[Finding]:
    """Each package that the course needs, beside the version it is tested with."""
    return [package(name, facts) for name in (*REQUIRED, *WANTED)]


def package(name: str, facts: Facts) -> Finding:
    """One package: there, and of the tested version."""
    version = facts.installed.get(name)
    if name in COLABS_OWN and _on_colab(facts):
        return ok(name, f"{version or 'none'}: Colab brings its own")
    if version is None and name == "triton" and facts.system != "Linux":
        return ok(name, "not on this system: chapters say what it gives on Linux")
    wanted = (facts.pinned or {}).get(name)
    alone = f"{'%' * _on_colab(facts)}pip install {name}" + (f"=={wanted}" if wanted else "")
    if version is None:
        return (fail if name in REQUIRED else warn)(name, "not installed", f"{alone}, or {install(facts)}")
    # A build's label, such as +cpu, is not a version.
    if wanted is None or version.split("+")[0] == wanted:
        return ok(name, version)
    return warn(name, f"{version}, tested with {wanted}", f"{alone}, or {install(facts)}")


def imports(facts: Facts) -> Finding:
    """Torch and Numba do not only lie there, they load."""
    if not facts.import_error:
        return ok("imports", "torch and numba load")
    return fail("imports", facts.import_error, f"make a new environment (delete .venv first): {install(facts)}")


def threads(facts: Facts) -> Finding:
    """PyTorch and Numba use the cores there are."""
    found = f"PyTorch {facts.torch_threads}, Numba {facts.numba_threads}, of {facts.cores} cores"
    if facts.import_error:
        return warn("threads", "unknown: torch or numba does not load", "see imports")
    fewest, most = sorted((facts.torch_threads, facts.numba_threads))
    if most > facts.cores:
        return warn("threads", found, f"set OMP_NUM_THREADS={facts.cores} and NUMBA_NUM_THREADS={facts.cores}")
    if fewest < facts.cores and facts.cores > 1:
        set_here = [name for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name in facts.environment]
        remedy = f"unset {' and '.join(set_here)}" if set_here else "fine on shared cores: hyper-threads are left out"
        return warn("threads", found, remedy) if set_here else ok("threads", f"{found} ({remedy})")
    return ok("threads", found)


def numba_layer(facts: Facts) -> Finding:
    """Which library starts Numba's threads; one of them must not be entered from two threads at once."""
    if not facts.numba_layer:
        return warn("numba threads", "no layer could be started", "pip install --force-reinstall numba; kernels need it")
    if facts.numba_layer == "workqueue":
        return warn("numba threads", "workqueue: must not be called from two threads at once", "pip install tbb, or libomp")
    return ok("numba threads", facts.numba_layer)


def numba_cache(facts: Facts) -> Finding:
    """Compiled kernels have a place, without which Numba compiles none."""
    if facts.import_error:
        return warn("numba cache", "unknown: torch or numba does not load", "see imports")
    if facts.numba_cache:
        return ok("numba cache", facts.numba_cache)
    found = "nowhere to write: not beside the kernels, not in your cache folder; no kernel can be compiled"
    return fail("numba cache", found, "set NUMBA_CACHE_DIR to a folder of your own")


def triton_runs(facts: Facts) -> Finding:
    """Where Triton kernels run: on a GPU, in the interpreter, or nowhere."""
    asked = facts.environment.get("TRITON_INTERPRET") == "1"
    if facts.installed.get("triton") is None:
        return (
            ok("triton runs", "nowhere: it is not installed")
            if facts.system != "Linux"
            else warn("triton runs", "nowhere: it is not installed", install(facts))
        )
    if asked and facts.triton_interprets is False:
        return fail("triton runs", "TRITON_INTERPRET was set too late: triton had been imported", INTERPRETER)
    if facts.gpu and asked:
        return warn("triton runs", f"interpreted, although there is a GPU ({facts.gpu})", "unset TRITON_INTERPRET")
    if facts.gpu:
        return ok("triton runs", f"on {facts.gpu}")
    if asked:
        return ok("triton runs", "in its interpreter (no GPU)")
    if facts.triton_interprets is False:
        return warn("triton runs", "nowhere: no GPU, and triton is imported without its interpreter", INTERPRETER)
    return ok("triton runs", "in its interpreter where a chapter asks for it (no GPU)")


def chromium(facts: Facts) -> Finding:
    """The browser of the tests; the course itself opens in any."""
    if facts.chromium:
        return ok("chromium", facts.chromium)
    return warn("chromium", "not here: browser tests are skipped", "install Debian's package chromium, or Chrome")


def extensions(facts: Facts) -> Finding:
    """JupyterLab finds the parts of the widgets that run in the browser."""
    if _on_colab(facts):
        return ok("lab extensions", "not needed: Colab has its own way to show widgets")
    missing = [name for name, there in facts.extensions.items() if not there]
    if not missing:
        return ok("lab extensions", ", ".join(facts.extensions))
    remedy = (
        f"pip install --force-reinstall {' '.join(missing)} in the environment that runs JupyterLab, then reload the page"
    )
    return warn("lab extensions", f"missing: {', '.join(missing)}; widgets would stay blank", remedy)


def compiler(facts: Facts) -> Finding:
    """torch.compile's default backend needs a C++ compiler."""
    if facts.compiler:
        return ok("C++ compiler", facts.compiler)
    return warn(
        "C++ compiler", "none: torch.compile's inductor cannot run here", "install g++ or clang; no chapter needs it"
    )


PLATFORM_NOTES = {
    "Colab": "the widgets turn Colab's custom widget manager on by themselves",
    "WSL": "open the address that `hybridlab lab --no-browser` prints in a browser of Windows",
    "devcontainer": "`hybridlab lab --no-browser`, and open the forwarded port",
    "Windows": "no make and no triton here: `hybridlab lab` opens the course",
    "macOS": "no triton here: chapters say what it gives on Linux",
}
SYSTEMS = {"Darwin": "macOS"}


def platform(facts: Facts) -> Finding:
    """What kind of machine this is, by name."""
    kinds = platform_kinds(facts)
    notes = [PLATFORM_NOTES[kind] for kind in kinds if kind in PLATFORM_NOTES]
    return ok("platform", f"{', '.join(kinds)} {facts.machine}" + "".join(f"; {note}" for note in notes))


def platform_kinds(facts: Facts) -> list[str]:
    """The operating system, and what it runs in."""
    marks = {
        "WSL": re.search("microsoft", facts.kernel, re.IGNORECASE) is not None,
        "conda": "CONDA_PREFIX" in facts.environment,
        "devcontainer": "REMOTE_CONTAINERS" in facts.environment or "DEVCONTAINER" in facts.environment,
        "Colab": _on_colab(facts),
    }
    return [SYSTEMS.get(facts.system, facts.system), *(name for name, marked in marks.items() if marked)]


PROBES: tuple[Callable[[Facts], Finding], ...] = (
    platform,
    python,
    course,
    constraints,
    memory,
    disk,
    imports,
    threads,
    numba_layer,
    numba_cache,
    triton_runs,
    extensions,
    chromium,
    compiler,
)


def examine(facts: Facts) -> list[Finding]:
    """All findings about one machine."""
    return [*(probe(facts) for probe in PROBES), *packages(facts)]


def can_run(findings: list[Finding]) -> bool:
    """Whether the course runs: nothing failed."""
    return all(finding.status != "fail" for finding in findings)
