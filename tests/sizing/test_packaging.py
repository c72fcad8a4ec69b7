"""What is installed, what is exported, and what a start imports."""

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import sizing
from sizing._siblings import check_siblings

ROOT = Path(__file__).parents[2]
PACKAGES = {"sizing", "solver", "problems", "model_ops"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the names in the wheel that this source tree builds."""
    for needed in ("hatchling", "pip"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--quiet", "--wheel-dir", str(folder), "."]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_wheel_holds_the_four_packages(wheel: list[str]) -> None:
    top = {name.split("/")[0] for name in wheel}
    info = {name for name in top if name.endswith(".dist-info")}
    assert len(info) == 1
    assert top - info == PACKAGES


def test_wheel_holds_every_source_and_data_file(wheel: list[str]) -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in (".py", ".toml"):
                assert path.relative_to(ROOT).as_posix() in wheel


def test_wheel_holds_the_licence_and_no_tests(wheel: list[str]) -> None:
    assert any(name.endswith("LICENSE") and ".dist-info/" in name for name in wheel)
    assert not any("test" in name.split("/")[-1] for name in wheel)
    assert not any("__pycache__" in name for name in wheel)


def test_public_names_can_be_imported() -> None:
    assert sizing.__all__
    for name in sizing.__all__:
        assert getattr(sizing, name).__doc__


def test_other_names_cannot() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sise'"):
        _ = sizing.sise


def python(code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import sizing.cli",
        "from sizing.cli import _run; _run(['--help'])",
        "from sizing.cli import _run; _run(['--version'])",
        "from sizing.cli import _run; _run(['size', '--help'])",
        "from sizing.cli import _run; _run(['estimate', '--help'])",
    ],
)
def test_a_start_imports_nothing_heavy(statement: str) -> None:
    heavy = "{'ortools', 'numpy', 'pydantic', 'pandas', 'rich'}"
    done = python(f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_question_that_needs_no_solver_does_not_import_it() -> None:
    done = python(
        "import sys; from sizing.cli import _run;"
        "_run(['estimate', '--model', 'llama-3.1-8b', '--npu', 'l40s',"
        " '--input-tokens', '9', '--output-tokens', '9']);"
        "print('ortools' in sys.modules)"
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_our_siblings_are_found() -> None:
    check_siblings()


@pytest.mark.parametrize("name", sorted(PACKAGES - {"sizing"}))
@pytest.mark.parametrize("as_package", [True, False], ids=["package", "file"])
def test_a_foreign_sibling_is_refused_by_name_and_path(
    tmp_path: Path, name: str, as_package: bool
) -> None:
    foreign = tmp_path / (f"{name}/__init__.py" if as_package else f"{name}.py")
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("")
    done = python("import sizing", cwd=tmp_path)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"'{name}'" in last
    assert str(foreign) in last


def test_a_foreign_sibling_stops_the_command_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "solver.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "sizing", "new"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert str(tmp_path / "solver.py") in done.stderr
    assert done.stdout == ""
