"""What README says is true: its code runs, its links lead somewhere, its commands exist, its picture is the account's."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hybridlab.cli.doctor import PLATFORM_NOTES, install
from hybridlab.cli.facts import Facts

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_the_code_prints_what_it_says() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    result = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    said = re.findall(r"print\(.*\)\s*# ([\d.]+)", block)
    printed = [f"{float(line):.1f}" for line in result.stdout.split()]
    assert len(said) == 2
    assert printed == said


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([\w./-]+)", README, re.MULTILINE))
    assert {"lab", "test", "help"} <= named <= targets


def test_every_command_exists() -> None:
    named = set(
        re.findall(r"hybridlab ([a-z]+)\b(?=[^`\n]*(?:`|\n|  ))", " ".join(re.findall(r"```\n(.*?)```", README, re.DOTALL)))
    )
    shown = subprocess.run(
        [Path(sys.executable).parent / "hybridlab", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert named
    assert not {command for command in named if not re.search(rf"\b{command}\b", shown)}


def test_every_platform_that_the_doctor_knows_has_a_way_in() -> None:
    ways = README.split("## Other ways in")[1].split("\n## ")[0]
    assert len(PLATFORM_NOTES) >= 5
    assert not [kind for kind in PLATFORM_NOTES if f"| {kind}" not in ways and f"| a {kind}" not in ways]


@pytest.mark.parametrize(
    "facts", [Facts(system="Windows"), Facts(environment={"COLAB_RELEASE_TAG": "x"})], ids=["Windows", "Colab"]
)
def test_the_doctor_and_readme_give_the_same_line(facts: Facts) -> None:
    line = install(facts).split(" in the ")[0]
    assert f"{line}\n" in README


@pytest.mark.minutes
def test_the_picture_is_drawn_from_the_account() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow comes with matplotlib, from the extra `course`")
    sys.path.insert(0, str(ROOT / "docs"))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from pictures import memory_picture

    drawn = io.BytesIO()
    FigureCanvasAgg(memory_picture()).print_png(drawn)
    new, stored = (
        np.asarray(image.open(source).convert("RGB"), dtype=float) for source in (drawn, ROOT / "docs/memory.png")
    )
    assert new.shape == stored.shape
    # A line one pixel off changes a few thousand values by 200; fonts drawn by another library change a few by less.
    assert (np.abs(new - stored) > 64).mean() < 1e-3
