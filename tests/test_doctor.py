"""The doctor: each probe says ok, warn or fail for machines that are described, not had; and this one is fit."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from hybridlab.cli import doctor, facts
from hybridlab.cli.doctor import Finding, can_run, examine, package, platform_kinds
from hybridlab.cli.facts import Facts, gather, read_constraints

NAMES = (*doctor.REQUIRED, *doctor.WANTED)
WELL = Facts(
    python=(3, 12, 1),
    root="course",
    root_writable=True,
    memory_bytes=8 * 2**30,
    free_bytes=2**30,
    pinned=dict.fromkeys(NAMES, "1.0"),
    installed=dict.fromkeys(NAMES, "1.0"),
    cores=2,
    torch_threads=2,
    numba_threads=2,
    numba_layer="omp",
    numba_cache="cache",
    chromium="chromium",
    compiler="g++",
    extensions={"anywidget": True},
)


COLAB = {"COLAB_RELEASE_TAG": "release"}


def without(name: str) -> dict[str, str]:
    return {other: "1.0" for other in NAMES if other != name}


CASES = {
    "python too old": (doctor.python, {"python": (3, 10, 9)}, "fail", "Python 3.11, 3.12 or 3.13"),
    "python too new": (doctor.python, {"python": (3, 14, 0)}, "fail", "Python 3.11"),
    "wheel": (doctor.course, {"root": ""}, "warn", "clone the repository"),
    "read-only": (doctor.course, {"root_writable": False}, "warn", "copy the folder"),
    "4 GiB, as sold": (doctor.memory, {"memory_bytes": int(3.7 * 2**30)}, "ok", ""),
    "little memory": (doctor.memory, {"memory_bytes": 2**31}, "warn", "kernel down"),
    "memory unknown": (doctor.memory, {"memory_bytes": None}, "ok", ""),
    "full disk": (doctor.disk, {"free_bytes": 2**28}, "warn", "pip cache purge"),
    "torch broken on Windows": (
        doctor.imports, {"import_error": "torch: OSError: c10.dll", "system": "Windows"}, "fail", "-e .[course] in",
    ),
    "no extensions on Colab": (doctor.extensions, {"extensions": {"anywidget": False}, "environment": COLAB}, "ok", ""),
    "no constraints": (doctor.constraints, {"pinned": None}, "warn", "clone"),
    "torch broken": (doctor.imports, {"import_error": "torch: OSError: libc10.so"}, "fail", "new environment"),
    "threads held back": (
        doctor.threads, {"torch_threads": 1, "environment": {"OMP_NUM_THREADS": "1"}}, "warn", "unset OMP_NUM_THREADS",
    ),
    "too many threads": (doctor.threads, {"torch_threads": 8}, "warn", "OMP_NUM_THREADS=2"),
    "half the cores unasked": (doctor.threads, {"cores": 4}, "ok", ""),
    "no threading layer": (doctor.numba_layer, {"numba_layer": ""}, "warn", "reinstall numba"),
    "workqueue": (doctor.numba_layer, {"numba_layer": "workqueue"}, "warn", "tbb"),
    "no place for compiled kernels": (doctor.numba_cache, {"numba_cache": ""}, "fail", "NUMBA_CACHE_DIR"),
    "interpreter set too late": (
        doctor.triton_runs, {"triton_interprets": False, "environment": {"TRITON_INTERPRET": "1"}}, "fail", "restart Python",
    ),
    "interpreter never set": (doctor.triton_runs, {"triton_interprets": False}, "warn", "restart Python"),
    "interpreter set": (
        doctor.triton_runs, {"triton_interprets": True, "environment": {"TRITON_INTERPRET": "1"}}, "ok", "",
    ),
    "not imported yet": (doctor.triton_runs, {"triton_interprets": None}, "ok", ""),
    "GPU": (doctor.triton_runs, {"gpu": "H200", "triton_interprets": False}, "ok", ""),
    "GPU, interpreted": (
        doctor.triton_runs, {"gpu": "H200", "environment": {"TRITON_INTERPRET": "1"}}, "warn", "unset TRITON_INTERPRET",
    ),
    "no triton on Linux": (doctor.triton_runs, {"installed": without("triton")}, "warn", "pip install"),
    "no triton on macOS": (doctor.triton_runs, {"installed": without("triton"), "system": "Darwin"}, "ok", ""),
    "no chromium": (doctor.chromium, {"chromium": ""}, "warn", "chromium"),
    "extension missing": (doctor.extensions, {"extensions": {"anywidget": False}}, "warn", "--force-reinstall anywidget"),
    "no compiler": (doctor.compiler, {"compiler": ""}, "warn", "g++"),
}  # fmt: skip


@pytest.mark.parametrize(("probe", "changes", "status", "remedy"), CASES.values(), ids=CASES)
def test_probe(probe, changes: dict, status: str, remedy: str) -> None:
    finding = probe(replace(WELL, **changes))
    assert finding.status == status
    assert remedy in finding.remedy
    assert bool(finding.remedy) is (status != "ok")


@pytest.mark.parametrize("probe", doctor.PROBES, ids=lambda probe: probe.__name__)
def test_well_machine_passes_every_probe(probe) -> None:
    assert probe(WELL).status == "ok"


PACKAGES = {
    "as tested": ({"torch": "2.13.0"}, "Linux", "ok"),
    "a build's label is no version": ({"torch": "2.13.0+cpu"}, "Linux", "ok"),
    "another version": ({"torch": "2.12.0"}, "Linux", "warn"),
    "a version that only begins alike": ({"torch": "2.13.0.1"}, "Linux", "warn"),
    "missing": ({}, "Linux", "fail"),
}


@pytest.mark.parametrize(("installed", "system", "status"), PACKAGES.values(), ids=PACKAGES)
def test_package(installed: dict, system: str, status: str) -> None:
    assert package("torch", Facts(installed=installed, pinned={"torch": "2.13.0"}, system=system)).status == status


@pytest.mark.parametrize(("system", "status"), [("Linux", "warn"), ("Darwin", "ok"), ("Windows", "ok")])
def test_triton_is_missed_only_where_it_exists(system: str, status: str) -> None:
    assert package("triton", Facts(system=system)).status == status


def test_colab_keeps_its_own_jupyter_and_is_told_nothing_else() -> None:
    """Other versions of what its kernel is built on break a Colab runtime."""
    colab = replace(WELL, installed=without("jupyterlab") | {"ipykernel": "0.9", "torch": "0.9"}, environment=COLAB)
    findings = {finding.subject: finding for finding in examine(colab)}
    assert can_run(list(findings.values()))
    assert findings["jupyterlab"].status == findings["ipykernel"].status == "ok"
    assert findings["torch"].status == "warn"
    assert not [finding for finding in findings.values() if "[course]" in finding.remedy or "make" in finding.remedy]


REMEDIES = {"Linux": "'.[course]'", "Darwin": "'.[course]'", "Windows": " .[course]"}  # cmd.exe takes quotes literally


@pytest.mark.parametrize(("system", "quoted"), REMEDIES.items())
def test_remedies_can_be_typed_on_their_platform(system: str, quoted: str) -> None:
    remedies = " ".join(finding.remedy for finding in examine(Facts(system=system)))
    assert quoted in remedies
    assert ("`make lab`" in remedies) is (system != "Windows")


NOTES = {
    "Colab": "widget manager",
    "WSL": "browser of Windows",
    "devcontainer": "forwarded port",
    "Windows": "no make and no triton",
}


@pytest.mark.parametrize(("kind", "note"), NOTES.items())
def test_platform_says_what_differs(kind: str, note: str) -> None:
    assert note in doctor.platform(replace(WELL, **PLATFORMS[kind][0])).found


PLATFORMS = {
    "Linux": ({}, ["Linux"]),
    "macOS": ({"system": "Darwin"}, ["macOS"]),
    "Windows": ({"system": "Windows"}, ["Windows"]),
    "WSL": ({"kernel": "5.15.90.1-microsoft-standard-WSL2"}, ["Linux", "WSL"]),
    "conda": ({"environment": {"CONDA_PREFIX": "x"}}, ["Linux", "conda"]),
    "devcontainer": ({"environment": {"REMOTE_CONTAINERS": "true"}}, ["Linux", "devcontainer"]),
    "Colab": ({"environment": {"COLAB_RELEASE_TAG": "x"}}, ["Linux", "Colab"]),
}


@pytest.mark.parametrize(("changes", "kinds"), PLATFORMS.values(), ids=PLATFORMS)
def test_platform(changes: dict, kinds: list[str]) -> None:
    assert platform_kinds(replace(WELL, **changes)) == kinds


def test_the_course_runs_with_warnings_and_not_with_a_failure() -> None:
    assert can_run([Finding("a", "ok", ""), Finding("b", "warn", "", "do")])
    assert not can_run([Finding("a", "ok", ""), Finding("b", "fail", "", "do")])


def test_everything_missing_is_reported_not_raised() -> None:
    findings = examine(Facts(pinned=None, import_error="torch: ModuleNotFoundError: no torch"))
    assert not can_run(findings)
    assert {finding.subject for finding in findings if finding.status == "fail"} == {"imports", *doctor.REQUIRED}


def test_constraints_are_read_by_plain_names() -> None:
    text = "# comment\nJinja2==3.1.6\nast_serialize==0.13.1\n-e .\ntriton==3.7.1 ; sys_platform == 'linux'\n"
    assert read_constraints(text) == {"jinja2": "3.1.6", "ast-serialize": "0.13.1", "triton": "3.7.1"}


def test_broken_package_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert facts._import_error().startswith("torch: ModuleNotFoundError")


def test_place_of_compiled_kernels_is_the_one_numba_uses(tmp_path) -> None:
    """In a read-only copy that is not beside the sources; in another process, because a kernel asks once."""
    code = "from hybridlab.cli.facts import _numba_cache; print(_numba_cache())"
    chosen = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert chosen.stdout.startswith(str(tmp_path))
    refused = (
        "from numba.core import caching\n"
        "for kind in caching.CacheImpl._locator_classes: kind.from_function = classmethod(lambda *_: None)\n"
    )
    nowhere = subprocess.run([sys.executable, "-c", refused + code], capture_output=True, text=True, check=True)
    assert nowhere.stdout == "\n"


def test_folder_that_does_not_exist_yet_is_writable_where_it_can_be_made(tmp_path) -> None:
    assert facts._writable(tmp_path / "new" / "folder")
    file = tmp_path / "file"
    file.touch()
    assert not facts._writable(file)


def test_this_machine_is_examined_whole() -> None:
    findings = examine(gather())
    assert {finding.subject for finding in findings} >= {"python", "torch", "numba", "triton runs", "chromium"}
    assert can_run(findings), [finding for finding in findings if finding.status == "fail"]
