"""The house rules that a machine can check (docs/architecture.md, CONTRIBUTING.md)."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
SOFT_LIMIT = 400


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


def modules() -> list[str]:
    found = []
    for package in PACKAGES:
        found.append(package)
        paths = [str(ROOT / package)]
        found += [
            info.name for info in pkgutil.walk_packages(paths, package + ".") if not info.name.endswith("__main__")
        ]
    return found


@pytest.mark.slow
def test_the_layers_of_the_architecture_hold():
    checked = run("-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_every_package_is_typed_strictly():
    checked = run("-m", "mypy")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_installed_distribution_owns_one_of_our_import_names():
    owners = importlib.metadata.packages_distributions()
    assert {name: owners[name] for name in PACKAGES if name in owners} == {}


@pytest.mark.slow
@pytest.mark.parametrize("module", modules())
def test_what_a_module_exports_exists_and_is_named_once(module: str):
    loaded = importlib.import_module(module)
    exported = getattr(loaded, "__all__", [])
    assert len(set(exported)) == len(exported)
    assert [name for name in exported if not hasattr(loaded, name)] == []


def test_a_file_over_the_soft_limit_is_named_in_the_docs_with_its_reason():
    hubs = (ROOT / "docs" / "hubs.md").read_text()
    long = [
        str(file.relative_to(ROOT))
        for package in [*PACKAGES, "bench", "examples"]
        for file in (ROOT / package).rglob("*.py")
        if len(file.read_text().splitlines()) > SOFT_LIMIT
    ]
    assert [name for name in long if f"`{name}`" not in hubs] == []


@pytest.mark.parametrize(("name", "extras"), [("run", []), ("voice", ["voice"]), ("dev", ["voice", "dev"])])
def test_the_pinned_requirements_satisfy_the_project_and_are_hash_checked(name: str, extras: list[str]):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pinned = dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==([^\s;\\]+)", text, re.MULTILINE))
    wanted = list(PROJECT["project"]["dependencies"])
    for extra in extras:
        wanted += PROJECT["project"]["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement
    assert text.count("--hash=sha256:") >= len(pinned)


def test_the_pinned_requirements_name_no_host():
    for file in (ROOT / "requirements").iterdir():
        assert "://" not in file.read_text()


def test_who_reads_the_wall_clock_is_named_in_the_docs_with_its_reason():
    readers = {
        str(file.relative_to(ROOT))
        for package in ("relay", "transceiver", "agent", "service", "udpio")
        for file in (ROOT / package).rglob("*.py")
        if re.search(r"\btime\.time\b|wall_time\(|datetime\.now\(|utcnow\(", file.read_text())
    }
    named = re.findall(r"^\| `(\S+)` \| wall clock: ", (ROOT / "docs" / "hubs.md").read_text(), re.MULTILINE)
    assert set(named) == readers


def test_the_protocol_core_reads_no_clock_at_all():
    clock = re.compile(r"\btime\.(time|monotonic|perf_counter)\b|datetime\.now\(|utcnow\(|current_time\(")
    assert [str(file) for file in (ROOT / "protocol").rglob("*.py") if clock.search(file.read_text())] == []


def test_no_task_escapes_its_nursery():
    forbidden = re.compile(r"spawn_system_task|asyncio\.|def __del__")
    offenders = [
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if forbidden.search(file.read_text())
    ]
    assert offenders == []
