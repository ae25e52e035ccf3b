"""Where the course is on this machine, and the learner's own copies of its exercises."""

import re
from pathlib import Path

START = Path("chapters") / "00_start_here.ipynb"
OWN = "my_work"
# The folder that holds the package.
BESIDE = Path(__file__).resolve().parents[2]


def repository(beside: Path = BESIDE, current: Path | None = None) -> Path:
    """The folder of the course: the one this package is used from, or the current folder or one above it.

    Args:
        beside: the folder that holds the package.
        current: where to look otherwise; None is the current folder.

    Raises:
        ValueError: if there are no chapters in any of them, as with a package that was installed from a wheel.
    """
    current = (current or Path.cwd()).resolve()
    for folder in (beside, current, *current.parents):
        if _is_course(folder):
            return folder
    raise ValueError(
        f"the course's chapters are not in {beside} and not in {current} or above it: the installed package does not "
        "contain them; clone the repository and run this inside it"
    )


def _is_course(folder: Path) -> bool:
    return (folder / "pyproject.toml").is_file() and any((folder / name).is_dir() for name in ("chapters", "exercises"))


def start_chapter(root: Path) -> Path:
    """The chapter that the course opens on, relative to its root.

    Raises:
        ValueError: if it is not there.
    """
    if not (root / START).is_file():
        raise ValueError(f"{START.as_posix()} is not in {root}: this copy of the course is not complete; clone it again")
    return START


def exercise(root: Path, wanted: str) -> Path:
    """The exercise with a number or name such as 3, 03 or 03_rwkv.

    Raises:
        ValueError: if there is none; the message lists those that exist.
    """
    found = sorted((root / "exercises").glob("[0-9][0-9]_*.ipynb"))
    name = wanted.removesuffix(".ipynb")
    number = name.zfill(2) if re.fullmatch(r"[0-9]{1,2}", name) else None
    for path in found:
        if path.stem == name or path.stem.split("_")[0] == number:
            return path
    names = ", ".join(path.stem for path in found) or "none yet"
    raise ValueError(f"there is no exercise {wanted!r}; there are: {names}")


def start_exercise(root: Path, wanted: str) -> tuple[Path, bool]:
    """Copies an exercise to my_work/, which git ignores; never writes over what is there.

    Returns:
        the copy, and whether it is new.

    Raises:
        ValueError: no such exercise, or a folder that cannot be written to.
    """
    source = exercise(root, wanted)
    copy = root / OWN / source.name
    if copy.exists():
        return copy, False
    content = source.read_bytes()
    try:
        copy.parent.mkdir(exist_ok=True)
        # x: should another process have been quicker, this fails instead of writing over it.
        with copy.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise ValueError(
            f"cannot write {copy} ({error.strerror}): copy {source} to a folder of your own and work on it there"
        ) from None
    return copy, True
