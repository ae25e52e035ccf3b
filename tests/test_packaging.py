"""What is installed is what is written: one list of packages, one list of versions, one set of names."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9_.-]+", line)[0].lower().replace("_", "-") for line in requirements}


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_every_package_folder_is_listed() -> None:
    folders = {p.parent.relative_to(ROOT) for p in (ROOT / "hybridlab").rglob("*.py")}
    expected = {".".join(folder.parts) for folder in folders} | {"hybridlab.kernels"}
    assert set(SETUPTOOLS["packages"]) == expected


def test_every_requirement_is_pinned_exactly() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = requirement_names(PROJECT["dependencies"] + extras["course"] + extras["dev"]) - {"hybridlab"}
    assert wanted <= set(pinned())


def test_torch_and_triton_are_the_locked_pair() -> None:
    assert (pinned()["torch"], pinned()["triton"]) == ("2.13.0", "3.7.1")


def test_environment_file_adds_no_list_of_its_own() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert {re.split("[=<>]", entry)[0] for entry in plain} == {"python", "pip"}
    assert pip == ["-c constraints.txt", "-e .[course]"]


@pytest.mark.minutes
def test_wheel_contains_the_kernels_and_nothing_at_top_level_but_the_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    kernels = {f"hybridlab/kernels/{p.name}" for p in (ROOT / "kernels").glob("*.py")}
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "hybridlab").rglob("*.py")}
    assert kernels | sources <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"hybridlab"}


def test_import_needs_none_of_the_notebook_packages() -> None:
    banned = ["matplotlib", "IPython", "ipywidgets", "nbformat", "transformers", "rich", "typer", "triton", "tqdm"]
    code = (
        "import sys\n"
        f"for name in {banned!r}: sys.modules[name] = None\n"
        "import hybridlab, hybridlab.ops, hybridlab.layers, hybridlab.models, hybridlab.measure\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_nothing_imports_kernels_by_the_folder_name() -> None:
    pattern = re.compile(r"^\s*(from|import) kernels\b", re.MULTILINE)
    files = [*ROOT.glob("hybridlab/**/*.py"), *ROOT.glob("kernels/*.py"), *ROOT.glob("tests/*.py")]
    assert not [p.name for p in files if pattern.search(p.read_text())]


RANK = {
    "interpreter": 0,
    "shapes": 0,
    "state": 1,
    "kernels": 1,
    "ops": 2,
    "layers": 3,
    "models": 4,
    "measure": 5,
    "tasks": 5,
    "widgets": 6,
    "course": 6,
    "cli": 7,
}


def test_imports_point_one_way() -> None:
    wrong = []
    for path in ROOT.glob("hybridlab/**/*.py"):
        part = path.relative_to(ROOT / "hybridlab").parts[0].removesuffix(".py")
        for name in re.findall(r"^\s*(?:from|import) hybridlab\.(\w+)", path.read_text(), re.MULTILINE):
            if part != "__init__" and RANK[name] > RANK[part]:
                wrong.append(f"{path.relative_to(ROOT)} imports hybridlab.{name}")
    assert not wrong
