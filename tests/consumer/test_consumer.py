"""What users outside this tree do: install the wheel, link the C++ library, read each other's
files.

The wheel goes into a virtual environment of its own, which sees this one's torch; the C++ library
is used from there, and from a plain `cmake --install`.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"


def run(*words, cwd, check=True, **environment) -> subprocess.CompletedProcess:
    """Run a command with a clean PYTHONPATH; a failure shows all that it printed."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TOPREACH"))}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(map(str, words))}\n{done.stdout}", pytrace=False)
    return done


def tool(name: str) -> str:
    """A program of this Python's environment, else of the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is missing: run `make setup`"
    return found


@pytest.fixture(scope="session")
def built() -> Path:
    if not (BUILD / "CMakeCache.txt").exists():
        pytest.fail(f"{BUILD} has no build: run `make setup`", pytrace=False)
    return BUILD


@pytest.fixture(scope="session")
def wheel(built, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
    run(*pip, "-w", folder, ROOT, cwd=folder)
    (path,) = folder.glob("topreach-*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """The Python of a virtual environment with the wheel, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    # A .pth inside a folder that a .pth adds is not read: so this tree's editable install stays
    # out.
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", code, cwd=folder).stdout.strip())
    (site / "torch-of-the-tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    return python


@pytest.fixture(scope="session")
def package(installed) -> Path:
    code = "import topreach; print(topreach.__path__[0])"
    return Path(run(installed, "-c", code, cwd="/").stdout.strip())


# ---- the wheel ---------------------------------------------------------------------------------


def test_wheel_holds_library_headers_and_cmake_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "topreach/lib/libtopreach.so",
        "topreach/include/topreach/topreach.h",
        "topreach/share/cmake/topreach/topreachConfig.cmake",
        "topreach/share/topreach/build_info.json",
    } <= names
    modules = [n for n in names if n.startswith("topreach/_C.") and n.endswith(".so")]
    assert len(modules) == 1
    assert python_sources() == {n for n in names if n.endswith(".py")}
    readmes = {f"topreach_{p.relative_to(ROOT)}" for p in (ROOT / "experiments").rglob("README.md")}
    assert readmes <= names
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{version}-{version}-" in wheel.name  # _C is bound to the version of Python


def python_sources() -> set[str]:
    """What a wheel has of Python: the package and the experiments."""
    folders = {
        "topreach": ROOT / "python" / "topreach",
        "topreach_experiments": ROOT / "experiments",
    }
    return {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in folders.items()
        for path in folder.rglob("*.py")
    }


def test_wheel_admits_the_torch_it_was_built_against_only(wheel):
    (name,) = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".dist-info/METADATA")]
    metadata = zipfile.ZipFile(wheel).read(name).decode()
    minor = ".".join(torch.__version__.split(".")[:2])
    assert f"Requires-Dist: torch=={minor}.*" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_installed_wheel_imports_from_anywhere(installed, package, tmp_path):
    assert ROOT not in package.parents
    code = (
        "import torch, topreach as tr\n"
        "print(tr.topk_mask(torch.tensor([3.0, 1.0, 2.0]), 2).tolist(), tr.__version__)"
    )
    version = json.loads((package / "share/topreach/build_info.json").read_text())["version"]
    assert run(installed, "-c", code, cwd=tmp_path).stdout == f"[1.0, 0.0, 1.0] {version}\n"


def test_installed_wheel_lists_and_runs_experiments(installed, tmp_path):
    command = [installed, "-m", "topreach", "experiment"]
    assert "ranking_demo" in run(*command, cwd=tmp_path).stdout
    run(*command, "ranking_demo", "--quick", cwd=tmp_path)
    assert (tmp_path / "topreach-ranking_demo" / "results.csv").exists()


def test_another_torch_is_refused_in_one_sentence(installed, package, tmp_path):
    path = package / "share/topreach/build_info.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"torch": "2.10.0+cpu"}))
    try:
        done = run(installed, "-c", "import topreach", cwd=tmp_path, check=False)
    finally:
        path.write_text(kept)
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith(
        f"ImportError: topreach: was built against torch 2.10.0+cpu, but torch {torch.__version__} "
        "is running. Rebuild it against this torch: python -m pip install --no-build-isolation"
    )


def test_isolated_build_says_what_to_do(built, tmp_path):
    """A build environment without torch, as pip makes one by default."""
    code = "import sys; sys.modules['torch'] = None; sys.argv = ['setup.py', 'dist_info']\n"
    code += "exec(compile(open('setup.py').read(), 'setup.py', 'exec'), {'__file__': 'setup.py'})"
    done = run(sys.executable, "-c", code, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "install torch first" in done.stdout and "--no-build-isolation" in done.stdout
    assert "Traceback" not in done.stdout


def test_source_distribution_holds_what_a_build_needs(tmp_path):
    setup = [sys.executable, "setup.py", "-q"]
    run(*setup, "egg_info", "-e", tmp_path, "sdist", "-d", tmp_path, cwd=ROOT)
    (archive,) = tmp_path.glob("topreach-*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    for folder in ("cmake", "csrc", "kernels", "python", "tests", "tools", "docs", "examples"):
        wanted = {
            path.relative_to(ROOT)
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix not in (".pyc", ".so")
            if not {"__pycache__", "lib", "include", "share", "topreach.egg-info"} & set(path.parts)
        }
        missing = {path for path in wanted if not (source / path).exists()}
        assert not missing, f"not in the source distribution: {sorted(map(str, missing))}"
    for name in (
        "CMakeLists.txt",
        "setup.py",
        "pyproject.toml",
        "Makefile",
        "LICENSE",
        "README.md",
    ):
        assert (source / name).exists(), name


# ---- the C++ package ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def build_programs(request, built, tmp_path_factory):
    """Builds examples/cpp against the installed wheel or a C++-only installation, once each."""

    @functools.cache
    def build(installation: str) -> Path:
        folder = tmp_path_factory.mktemp("examples")
        if installation == "wheel":
            code = "import topreach; print(topreach.cmake_prefix_path)"
            python = request.getfixturevalue("installed")
            prefix = run(python, "-c", code, cwd=folder).stdout.strip()
        else:
            prefix = tmp_path_factory.mktemp("prefix")
            run(tool("cmake"), "--install", built, "--prefix", prefix, cwd=folder)
            assert not list(prefix.rglob("*.py"))
        run(
            tool("cmake"),
            *("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"),
            *("-S", ROOT / "examples" / "cpp", "-B", folder / "build"),
            f"-DCMAKE_PREFIX_PATH={prefix};{torch.utils.cmake_prefix_path}",
            cwd=folder,
        )
        run(tool("cmake"), "--build", folder / "build", "-j2", cwd=folder)
        return folder / "build"

    return build


def test_an_operator_of_ones_own(installed, tmp_path):
    """As docs/architecture.md says: kernel, schema, CPU, Meta, Autograd; held to plain ATen."""
    code = "import topreach; print(topreach.cmake_prefix_path)"
    prefix = run(installed, "-c", code, cwd=tmp_path).stdout.strip()
    run(
        tool("cmake"),
        *("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"),
        *("-S", ROOT / "tests" / "consumer" / "operator", "-B", tmp_path / "build"),
        f"-DCMAKE_PREFIX_PATH={prefix};{torch.utils.cmake_prefix_path}",
        cwd=tmp_path,
    )
    run(tool("cmake"), "--build", tmp_path / "build", cwd=tmp_path)
    torch.ops.load_library(str(tmp_path / "build" / "libnewcomer.so"))
    capped_total = torch.ops.newcomer.capped_total
    x = torch.rand(5, 9, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(capped_total(x, 0.5), x.clamp_max(0.5).sum(1))
    torch.library.opcheck(capped_total.default, (x, 0.5))
    assert torch.autograd.gradcheck(lambda t: capped_total(t, 0.5), (x,))
    with pytest.raises(ValueError, match="capped_total: cap must be above 0, got -1"):
        capped_total(x, -1.0)


@pytest.fixture(params=["wheel", "cmake --install"])
def programs(request, build_programs) -> Path:
    return build_programs(request.param)


def test_train_scorer_learns_and_repeats(programs, tmp_path):
    printed = run(programs / "train_scorer", cwd=tmp_path, OMP_NUM_THREADS="1").stdout
    before, after = (float(line.split()[-1]) for line in printed.splitlines())
    assert after > 0.85 and after > before + 0.1
    assert run(programs / "train_scorer", cwd=tmp_path, OMP_NUM_THREADS="1").stdout == printed


def test_rank_sites_gives_python_s_plan(programs, model_and_table, tmp_path):
    """Of the period after the last one, whose counts are blank in the table."""
    model, table, ranker, columns = model_and_table
    coming = pd.read_csv(table, dtype={"site": str})
    coming = coming[coming["year"] == coming["year"].max()]
    coming = coming.assign(year=coming["year"] + 1, deaths=np.nan)
    coming.to_csv(tmp_path / "coming.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        panel = tr.Panel.from_csv(tmp_path / "coming.csv", **columns, counts="optional")
        expected = ranker.rank(panel).query("selected")
    words = [programs / "rank_sites", model, tmp_path / "coming.csv", "site", "year", "deaths"]
    lines = run(*words, cwd=tmp_path).stdout.splitlines()
    printed = "\n".join(line for line in lines if not line.startswith("note: "))
    found = pd.read_csv(io.StringIO(printed), dtype={"site": str})
    assert found["time"].tolist() == expected["time"].tolist()
    assert found["site"].tolist() == expected["site"].tolist()
    for column in ("score", "expected_count", "chance_top_k"):
        # %.9g gives a float32 back exactly.
        ours = found[column].to_numpy(np.float32)
        np.testing.assert_array_equal(ours, expected[column].to_numpy(np.float32), err_msg=column)


def test_plan_sites_gives_python_s_plan(programs, tmp_path):
    """Under quotas, with sites that keep apart."""
    random = np.random.default_rng(0)
    sites = [f"0{i:02d}" for i in range(40)]
    table = pd.DataFrame(
        {
            "site": sites,
            "score": random.permutation(40) + 1.0,
            "lon": random.random(40).round(3),
            "lat": random.random(40).round(3),
            "town": random.choice(["A", "B", "C"], 40),
        }
    )
    graph = tr.Graph.from_coordinates(sites, table["lon"], table["lat"], radius=0.15)
    table.to_csv(tmp_path / "scores.csv", index=False)
    graph.edges().to_csv(tmp_path / "edges.csv", index=False)
    highs = tr.plan.highs_version().partition("(")[2].rstrip(")") if tr.plan.has_highs() else ""
    words = ["scores.csv", "edges.csv", "8", "town", "2", "plan.csv", "plan.geojson"]
    printed = run(programs / "plan_sites", *words, cwd=tmp_path, TOPREACH_HIGHS=highs).stdout
    plan = tr.plan.spaced(table, 8, graph=graph, groups="town", at_least=2, gap=1e-6)
    found = pd.read_csv(tmp_path / "plan.csv", dtype={"site": str})
    assert found["site"].tolist() == plan.ids
    assert f"8 sites, value {plan.value:g}, {plan.status}" in printed
    layer = json.loads((tmp_path / "plan.geojson").read_text())
    assert [feature["id"] for feature in layer["features"]] == plan.ids


# Every kind in the registry, with settings that keep its fit short; `exposure` where it takes it.
EQUIVALENT = {
    "empirical_bayes": {},
    "linear": {"window": 2, "max_epochs": 20},
    "mlp": {"window": 2, "max_epochs": 10},
    "negbin": {"objective": "marginal"},
    "normal_mixture": {"objective": "nll", "max_epochs": 10},
    "poisson_mixture": {"objective": "nll", "max_epochs": 20},
}


def test_every_forecaster_is_held_to_equivalence():
    of_counts = {name for name, kind in tr.forecasters.KINDS.items() if not kind.needs.events}
    assert of_counts == set(EQUIVALENT)


def test_cpp_ranks_events_as_python_does(build_programs, tmp_path):
    draw = np.random.default_rng(0)
    number = draw.integers(0, 8, 900)
    table = pd.DataFrame({"t": draw.uniform(0, 700, 900), "place": [f"{i:02d}" for i in number]})
    events = tr.Events.from_frame(table, time="t", place="place", resolution=0, window=(0, 700))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {"every": 30, "progress": False, "rank_samples": 100}
        ranker = tr.TopKRanker(3, model="stemmed", **settings).fit(events)
    ranker.save(tmp_path / "model.pt")
    expected = ranker.rank().query("selected")
    program = build_programs("wheel") / "rank_sites"
    lines = run(program, tmp_path / "model.pt", cwd=tmp_path).stdout.splitlines()
    printed = "\n".join(line for line in lines if not line.startswith("note: "))
    found = pd.read_csv(io.StringIO(printed), dtype={"site": str})
    assert found["site"].tolist() == expected["site"].tolist()
    for column in ("score", "expected_count"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-7, err_msg=column)
    # The events themselves, in C++.
    events.to_csv(tmp_path / "events.csv")
    example = program.parent / "forecast_events"
    printed = run(example, tmp_path / "events.csv", tmp_path / "model.pt", cwd=tmp_path).stdout
    listed = pd.read_csv(io.StringIO(printed), dtype={"place": str})
    late = table[(table["t"] > 672)].groupby("place").size()
    counts = dict(zip(listed["place"], listed["last_28_days"], strict=True))
    assert counts == {f"{i:02d}": int(late.get(f"{i:02d}", 0)) for i in range(8)}
    assert listed[listed["selected"] == 1]["place"].tolist() == expected["site"].tolist()


@pytest.mark.parametrize("exposure", [None, "people"])
@pytest.mark.parametrize("model", EQUIVALENT)
def test_cpp_ranks_as_python_does(build_programs, model, exposure, tmp_path):
    """From no table, the whole table, its last part, the next period alone; with exposure too."""
    if exposure and not tr.forecasters.KINDS[model].needs.exposure:
        pytest.skip(f"{model} takes no exposure")
    draw = np.random.default_rng(0)
    sites, periods = [f"{i:03d}" for i in range(40)], range(2010, 2020)
    rates, people = draw.gamma(1, 3, 40), draw.uniform(500, 5000, 40)
    table = pd.DataFrame(
        [(s, t, draw.poisson(rates[i]), people[i]) for t in periods for i, s in enumerate(sites)],
        columns=["site", "year", "n", "people"],
    )
    spec = {"site": "site", "time": "year", "count": "n", "features": [], "exposure": exposure}

    def panel(rows):
        return tr.Panel.from_frame(table[rows], **spec)

    program = build_programs("wheel") / "rank_sites"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = EQUIVALENT[model] | {"progress": False, "rank_samples": 100}
        ranker = tr.TopKRanker(5, model=model, **settings).fit(panel(table["year"] < 2018))
        ranker.save(tmp_path / "model.pt")
        tables = {
            "whole": table["year"] < 2020,
            "part": table["year"] >= 2015,
            "next": table["year"] == 2018,
        }
        plans = {"none": (ranker.rank(), [])}
        for name, rows in tables.items():
            table[rows].to_csv(tmp_path / f"{name}.csv", index=False)
            words = [
                tmp_path / f"{name}.csv",
                "site",
                "year",
                "n",
                *([exposure] if exposure else []),
            ]
            plans[name] = ranker.rank(panel(rows), periods_ahead=1), words
    for name, (expected, words) in plans.items():
        expected = expected.query("selected")
        printed = run(program, tmp_path / "model.pt", *words, cwd=tmp_path).stdout
        lines = [line for line in printed.splitlines() if not line.startswith("note: ")]
        found = pd.read_csv(io.StringIO("\n".join(lines)), dtype={"site": str})
        assert found["site"].tolist() == expected["site"].tolist(), name
        for column in ("score", "expected_count"):
            np.testing.assert_allclose(
                found[column], expected[column], rtol=1e-7, atol=1e-12, err_msg=f"{name} {column}"
            )
    needs = tr.forecasters.KINDS[model].needs
    if needs.past or needs.window:  # then the newer years tell
        assert list(plans["none"][0].site) != list(plans["whole"][0].site)


def test_the_page_on_cpp_shows_a_program_that_is_built():
    """docs/cpp.md shows examples/cpp/plan_next.cpp, which the tests here build and run."""
    block = re.search(r"```cpp\n(.*?)```", (ROOT / "docs/cpp.md").read_text(), re.DOTALL)
    assert block is not None
    assert block[1] == (ROOT / "examples/cpp/plan_next.cpp").read_text()


def test_plan_next_gives_python_s_plan(programs, tmp_path):
    """Of the period after the last one, from what the model knows alone."""
    counts = np.random.default_rng(0).poisson(np.arange(1, 21), (6, 20))
    panel = tr.Panel(
        np.zeros((6, 20, 0)), counts, [f"s{i:02d}" for i in range(20)], list(range(2015, 2021)), []
    )
    ranker = tr.TopKRanker(3, progress=False).fit(panel)
    ranker.save(tmp_path / "model.pt")
    printed = run(programs / "plan_next", cwd=tmp_path).stdout
    assert printed.splitlines() == ranker.rank().query("selected")["site"].tolist()


def test_cpp_plans_under_quotas_and_effects(build_programs, tmp_path):
    """The same file gives the same plan, with value, in C++ and in Python."""
    sites = [f"s{i:02d}" for i in range(20)]
    counts = np.random.default_rng(0).poisson(np.arange(1, 21), (6, 20))
    panel = tr.Panel(np.zeros((6, 20, 0)), counts, sites, list(range(2015, 2021)), [])
    towns = pd.Series([f"t{i // 4}" for i in range(20)], sites).sample(frac=1, random_state=0)
    effect = pd.Series(np.random.default_rng(1).uniform(0, 1, 20), sites)
    program = tr.programs.with_effect(tr.programs.Quotas(6, towns, lower=1, upper=2), effect)
    ranker = tr.TopKRanker(program, progress=False).fit(panel)
    ranker.save(tmp_path / "model.pt")
    expected = ranker.rank().query("selected")
    assert towns[expected["site"]].value_counts().between(1, 2).all()
    example = build_programs("wheel") / "rank_sites"
    printed = run(example, tmp_path / "model.pt", cwd=tmp_path).stdout
    found = pd.read_csv(io.StringIO(printed), dtype={"site": str})
    assert found["site"].tolist() == expected["site"].tolist()
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-7)
    np.testing.assert_allclose(found["chance_top_k"], expected["chance_top_k"], rtol=1e-7)


@pytest.mark.parametrize("column", ["deaths", "year"])
def test_rank_sites_names_what_is_missing(build_programs, fit, tmp_path, column):
    model, table, *_ = fit("linear")
    pd.read_csv(table, dtype={"site": str}).drop(columns=column).to_csv(tmp_path / "t.csv")
    program = [build_programs("wheel") / "rank_sites", model, tmp_path / "t.csv"]
    done = run(*program, "site", "year", "deaths", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stdout == f"rank_sites: the table has no column '{column}'\n"


@pytest.fixture(scope="session")
def fit(tmp_path_factory):
    """Fits a ranker on a table, once each; gives its file, the table, the ranker, the columns."""

    @functools.cache
    def make(model: str):
        folder = tmp_path_factory.mktemp("model")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            splits = tr.datasets.simulate_county(0)
            table = pd.concat([part.to_frame() for part in splits])
            table.columns = ["site", "year", "deaths", *table.columns[3:]]
            table.to_csv(folder / "table.csv", index=False)
            columns = {"site": "site", "time": "year", "count": "deaths"}
            panel = tr.Panel.from_csv(folder / "table.csv", **columns)
            train, valid, _ = panel.split(valid=panel.times[-1:])
            ranker = tr.TopKRanker(
                100,
                model=model,
                progress=False,
                max_epochs=5,
                warm_start_epochs=5,
                validate_every=5,
                rank_samples=50,
                window=2,
            ).fit(train, valid)
        ranker.save(folder / "model.pt")
        return folder / "model.pt", folder / "table.csv", ranker, columns

    return make


@pytest.fixture(params=["negbin", "linear", "mlp"])
def model_and_table(request, fit):
    return fit(request.param)
