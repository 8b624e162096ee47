"""Builds libtopreach with CMake and puts it into the package; pyproject.toml holds the metadata.

Environment: TOPREACH_CUDA=auto|on|off, CMAKE_ARGS (more arguments for CMake), CXX, MAX_JOBS.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build"
SUPPORTED_TORCH = ((2, 11), (2, 14))  # from, up to but not including
OLDEST_CMAKE = (3, 25)
INSTALLED = ("lib", "include", "share")  # folders that CMake puts into the package


def version() -> str:
    """The version, which CMakeLists.txt states."""
    text = (ROOT / "CMakeLists.txt").read_text()
    return re.search(r"^project\(topreach VERSION ([0-9.]+)", text, re.MULTILINE).group(1)


def dependencies() -> list[str]:
    """What the package needs. A build admits only the minor version of torch it was built
    against."""
    low, high = (".".join(map(str, v)) for v in SUPPORTED_TORCH)
    torch = f"torch>={low},<{high}"
    if building():
        torch = "torch==" + ".".join(map(str, torch_version())) + ".*"
    return [torch, "numpy", "pandas", "scipy", "tqdm"]


def building() -> bool:
    commands = {"bdist_wheel", "build", "build_ext", "dist_info", "editable_wheel"}
    return bool(commands & set(sys.argv[1:]))


def torch_version() -> tuple[int, int]:
    try:
        import torch
    except ImportError:
        stop(
            "topreach is built against the torch that it will run with, and this build sees none: "
            "install torch first (python -m pip install torch==2.13.0), then build with "
            "python -m pip install --no-build-isolation ."
        )
    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if not SUPPORTED_TORCH[0] <= found < SUPPORTED_TORCH[1]:
        stop(
            f"topreach needs torch 2.11, 2.12 or 2.13, got {torch.__version__}: "
            "python -m pip install torch==2.13.0"
        )
    return found


def stop(message: str) -> None:
    sys.exit(f"error: {message}")


def cmake() -> str:
    """A CMake of version 3.25 or newer: the one beside this Python, else the one on the PATH."""
    found = []
    for folder in (str(Path(sys.executable).parent), None):
        program = shutil.which("cmake", path=folder)
        if program:
            text = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            match = re.search(r"version (\d+)\.(\d+)", text)
            if match and tuple(map(int, match.groups())) >= OLDEST_CMAKE:
                return program
            found.append(program)
    older = f" ({found[0]} is older)" if found else ""
    stop(f"topreach needs CMake 3.25 or newer{older}: python -m pip install cmake ninja")


def compiler() -> str:
    program = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not program or not shutil.which(shlex.split(program)[0]):
        stop(
            "topreach needs a C++20 compiler (g++ 11 or newer) and finds none: "
            "sudo apt-get install g++, or set CXX to one"
        )
    return program


def jobs() -> int:
    """Compilers to run at once: one for each core, and for each 3 GiB of memory."""
    if os.environ.get("MAX_JOBS"):
        return max(1, int(os.environ["MAX_JOBS"]))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        pass  # no limit
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, memory // (3 << 30)))


class BuildLibrary(build_ext):
    """Runs CMake in build/ and installs what it builds into the package's folder."""

    def run(self) -> None:
        torch_version()
        compiler()
        program = cmake()
        environment = os.environ | {
            "CCACHE_NOHASHDIR": os.environ.get("CCACHE_NOHASHDIR", "1"),
            "CCACHE_BASEDIR": os.environ.get("CCACHE_BASEDIR", str(ROOT)),
        }
        arguments = [f"-DPython_EXECUTABLE={sys.executable}", "-DTOPREACH_PYTHON=ON"]
        arguments.append("-DCMAKE_INSTALL_MESSAGE=NEVER")
        if self.must_start_afresh():
            arguments.append("--fresh")
            arguments.append("-DTOPREACH_TESTS=OFF")  # until CMAKE_ARGS asks for them
            ninja = shutil.which("ninja", path=str(Path(sys.executable).parent))
            ninja = ninja or shutil.which("ninja")
            if ninja:
                arguments += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        if os.environ.get("TOPREACH_CUDA"):
            arguments.append(f"-DTOPREACH_CUDA={os.environ['TOPREACH_CUDA']}")
        arguments += shlex.split(os.environ.get("CMAKE_ARGS", ""))

        def step(*words: str) -> None:
            code = subprocess.run([program, *words], env=environment, stdin=subprocess.DEVNULL)
            if code.returncode:
                stop(f"CMake failed (exit status {code.returncode}); its messages stand above")

        step("-S", str(ROOT), "-B", str(BUILD), *arguments)
        step("--build", str(BUILD), "-j", str(jobs()))
        package = self.package_folder()
        for folder in INSTALLED:
            shutil.rmtree(package / folder, ignore_errors=True)
        for module in package.glob("_C.*.so"):
            module.unlink()
        step("--install", str(BUILD), "--prefix", str(package))

    def must_start_afresh(self) -> bool:
        """Whether CMake's cache is missing, of a moved source tree, or of a torch elsewhere."""
        import torch

        try:
            cache = (BUILD / "CMakeCache.txt").read_text()
        except FileNotFoundError:
            return True
        source = f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n"
        library = f"TOPREACH_LIB_torch:FILEPATH={Path(torch.__file__).parent}/"
        return source not in cache or library not in cache

    def package_folder(self) -> Path:
        if self.inplace or self.editable_mode:
            return ROOT / "python" / "topreach"
        return Path(self.build_lib).resolve() / "topreach"

    def get_outputs(self) -> list[str]:
        package = self.package_folder()
        installed = [f for d in INSTALLED for f in (package / d).rglob("*") if f.is_file()]
        return [str(f) for f in (*installed, *package.glob("_C.*.so"))]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class CleanBuildPy(build_py):
    """Starts from an empty folder, so that a wheel holds no file that the source has no more."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


experiments = ["topreach_experiments"] + [
    f"topreach_experiments.{name}" for name in find_packages(str(ROOT / "experiments"))
]

setup(
    version=version(),
    packages=find_packages(str(ROOT / "python"), include=["topreach", "topreach.*"]) + experiments,
    package_dir={"": "python", "topreach_experiments": "experiments"},
    package_data={
        "topreach": ["_C.pyi", "py.typed"],
        "topreach_experiments": ["README.md", "*/README.md"],
    },
    install_requires=dependencies(),
    ext_modules=[Extension("topreach.libtopreach", sources=[])],
    cmdclass={"build_ext": BuildLibrary, "build_py": CleanBuildPy},
)
