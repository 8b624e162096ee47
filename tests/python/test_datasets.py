"""Data sets: found, downloaded whole or not at all, and with the known figures."""

import contextlib
import functools
import hashlib
import http.server
import os
import re
import socket
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from topreach.data.datasets import (
    aerial_surveys,
    cook_county,
    download,
    ma_overdose,
    published,
    simulate_county,
    simulate_massachusetts,
)
from topreach.data.datasets.download import RemoteFile, find_folder
from topreach.data.panel import Panel
from topreach.data.standardizer import Standardizer
from topreach.evaluation import baselines

needs_data = pytest.mark.skipif(
    not os.environ.get("TOPREACH_DATA"), reason="needs real data: set TOPREACH_DATA to its folder"
)


def expected_bpr(scores, counts, k):
    """BPR's expectation under random tie-breaking, from its definition, one period."""
    scores, counts = np.asarray(scores, float), np.asarray(counts, float)
    threshold = np.sort(scores)[::-1][k - 1]
    above, tied = scores > threshold, scores == threshold
    reach = counts[above].sum() + (k - above.sum()) * counts[tied].mean()
    return reach / np.sort(counts)[::-1][:k].sum()


def figures(forecast, panel, k):
    error = forecast.double() - panel.y.double()
    return (
        float(error.abs().mean()),
        float(error.square().mean().sqrt()),
        float(np.mean([expected_bpr(f, y, k) for f, y in zip(forecast, panel.y, strict=True)])),
    )


@pytest.fixture
def simulated():
    with pytest.warns(UserWarning, match="SIMULATED"):
        return simulate_county()


# ---- the real sets -------------------------------------------------------------------------------


@needs_data
def test_cook_county_shape():
    train, valid, test = cook_county()
    assert (train.times, valid.times, test.times) == ([2, 3, 4, 5], [6], [7, 8])
    assert train.num_sites == 1328
    assert train.num_features == 13
    assert not {"geoid", "deaths", "timestep"} & set(train.feature_names)
    assert train.site_ids[0] == "17031010100"
    # The first row of the published test files.
    assert test.y[0, 0] == 4
    row = dict(zip(test.feature_names, test.x[0, 0].tolist(), strict=True))
    assert row["deaths_sp_lag"] == pytest.approx(1.6)
    assert row["prev_deaths_01back"] == 3


@needs_data
def test_aerial_surveys_shape():
    train, valid, test = aerial_surveys()
    assert train.times == list(range(161, 176))
    assert valid.times == list(range(176, 182))
    assert test.times == list(range(182, 188))
    assert train.num_sites == 1338
    assert train.num_features == 9
    assert train.site_ids == [str(s) for s in range(1338)]
    # The trap: fewer sites with cranes than K = 50 in some period.
    assert int((test.batch(window=1).history[..., 0] > 0).sum(dim=1).min()) == 41


@needs_data
@pytest.mark.parametrize(("load", "lag"), [(cook_county, "deaths"), (aerial_surveys, "counts")])
def test_windows_are_the_published_lags(load, lag):
    """The files' own lag columns, made by the authors, are an oracle for history and windows."""
    for part in load():
        lags = [part.feature_names.index(f"prev_{lag}_0{back}back") for back in (5, 4, 3, 2, 1)]
        assert torch.equal(part.batch(window=5).history, part.x[:, :, lags])


@needs_data
def test_cook_county_constant_column():
    train, _, test = cook_county()
    with pytest.warns(UserWarning, match="prev_deaths_05back"):
        standardizer = Standardizer().fit(train)
    assert standardizer.dropped_ == ["prev_deaths_05back"]
    assert torch.isfinite(standardizer.transform(test).x).all()


@needs_data
@pytest.mark.parametrize(
    ("load", "k", "forecast", "expected"),
    [
        (cook_county, 100, baselines.last_period, (1.069, 1.659, 0.748)),
        (
            cook_county,
            100,
            functools.partial(baselines.historical_mean, window=5),
            (0.943, 1.455, 0.820),
        ),
        (cook_county, 100, baselines.chance, (1.369, 2.460, 0.200)),
        # One random tie-breaking gave a BPR of .278, within its spread of .0066 (sd over 2,000 of
        # them) around the expectation, .276.
        (aerial_surveys, 50, baselines.last_period, (0.240, 1.066, 0.276)),
        (
            aerial_surveys,
            50,
            functools.partial(baselines.historical_mean, window=10),
            (0.251, None, 0.377),
        ),
        # All history: the 21 periods of train and validation, rolling.
        (
            aerial_surveys,
            50,
            functools.partial(baselines.historical_mean, window=21),
            (0.294, None, 0.399),
        ),
        (aerial_surveys, 50, baselines.chance, (0.156, None, 0.045)),
    ],
)
def test_naive_baselines_reproduce_the_figures(load, k, forecast, expected):
    """The figures of `topreach.evaluation.baselines`, recomputed from the published files, and the
    chance row of D25 Table C.2, to three digits."""
    test = load().test
    for value, figure in zip(figures(forecast(test), test, k), expected, strict=True):
        assert figure is None or value == pytest.approx(figure, abs=0.00051)


@needs_data
def test_root_may_be_the_folder_or_the_one_above(tmp_path, monkeypatch):
    data = os.environ["TOPREACH_DATA"]
    monkeypatch.delenv("TOPREACH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for root in (data, os.path.join(data, "aerial_surv")):
        assert aerial_surveys(root).train.num_sites == 1338


@needs_data
@pytest.mark.parametrize(
    ("folder", "files"),
    [("cook_county", published.COOK_COUNTY), ("aerial_surv", published.AERIAL_SURVEYS)],
)
def test_checksums_are_those_of_the_files(folder, files):
    for name, remote in files.items():
        with open(os.path.join(os.environ["TOPREACH_DATA"], folder, name), "rb") as file:
            content = file.read()
        assert remote == RemoteFile(len(content), hashlib.sha256(content).hexdigest())


# ---- files of the right form ---------------------------------------------------------------------


def write_small_county(folder):
    folder.mkdir(parents=True)
    lags = [f"prev_deaths_0{back}back" for back in (5, 4, 3, 2, 1)]
    for part, times in (("train", [2, 3, 4, 5]), ("valid", [6]), ("test", [7, 8])):
        x = [",".join(["geoid", "timestep", "u", "timestep", *lags])]
        y = ["geoid,timestep,deaths"]
        for t in times:
            for s in ("01", "02"):
                x.append(f"{s},{t},{t}.5,{t},0,0,0,0,{t + 1}")
                y.append(f"{s},{t},{t + int(s)}")
        (folder / f"{part}_x.csv").write_text("\n".join(x) + "\n")
        (folder / f"{part}_y.csv").write_text("\n".join(y) + "\n")
    return folder


def test_a_folder_of_the_same_form_is_read(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, valid, test = cook_county(write_small_county(tmp_path / "cook_county"))
    assert train.site_ids == ["01", "02"]
    assert train.feature_names[0] == "u"
    assert train.num_features == 6
    assert train.history_y.tolist() == [[3, 3]]
    assert valid.y.tolist() == [[7, 8]]
    assert test.source == "cook_county"


def test_rows_in_one_file_only(tmp_path):
    folder = write_small_county(tmp_path / "cook_county")
    with open(folder / "valid_y.csv", "a") as file:
        file.write("03,6,1\n")
    with pytest.raises(ValueError, match=r"valid_x.csv and valid_y.csv must .* '03' at time 6"):
        cook_county(tmp_path)


def test_root_without_the_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cook_county: root must be a folder with test_x"):
        cook_county(tmp_path)


def test_environment_before_cache(tmp_path, monkeypatch):
    write_small_county(tmp_path / "data" / "cook_county")
    monkeypatch.setenv("TOPREACH_DATA", str(tmp_path / "data"))
    assert cook_county().train.num_sites == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TOPREACH_DATA")
    write_small_county(tmp_path / "cache" / "topreach" / "cook_county")
    assert cook_county().train.num_sites == 2


# ---- downloading ---------------------------------------------------------------------------------


@contextlib.contextmanager
def serve(folder):
    """A server of `folder` on a free local port; yields its address and the requested paths."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A small data set on a server's disk, its checksums, and an empty cache."""
    monkeypatch.delenv("TOPREACH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    folder = write_small_county(tmp_path / "home" / "cook_county")
    files = {
        path.name: RemoteFile(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
    }
    monkeypatch.setattr(published, "COOK_COUNTY", files)
    return tmp_path


def test_download_into_the_cache_once(remote, monkeypatch, capsys):
    with serve(remote / "home") as (home, asked):
        monkeypatch.setattr(published, "HOME", home)
        assert cook_county().train.num_sites == 2
        assert len(asked) == 6
        assert cook_county().train.num_sites == 2
        assert len(asked) == 6
    cached = remote / "cache" / "topreach" / "cook_county"
    assert sorted(p.name for p in cached.iterdir()) == sorted(published.COOK_COUNTY)
    assert "cook_county/train_x.csv" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"cut short", b"x" * 100_000])
def test_a_file_with_another_checksum_is_not_kept(remote, monkeypatch, content):
    (remote / "home" / "cook_county" / "train_y.csv").write_bytes(content)
    with serve(remote / "home") as (home, _):
        monkeypatch.setattr(published, "HOME", home)
        with pytest.raises(ValueError, match=r"cook_county: .*train_y.csv must have the SHA-256"):
            cook_county()
    left = [p.name for p in (remote / "cache" / "topreach" / "cook_county").iterdir()]
    assert "train_y.csv" not in left
    assert not [name for name in left if name.endswith(".part")]


def test_absent_at_home(remote, monkeypatch):
    (remote / "home" / "cook_county" / "test_x.csv").unlink()
    with serve(remote / "home") as (home, _):
        monkeypatch.setattr(published, "HOME", home)
        with pytest.raises(ConnectionError, match=r"404.*test_x.csv"):
            cook_county()


def test_offline_says_how_to_mend_it(remote, monkeypatch):
    with socket.socket() as closed:  # bound and not listening: refuses at once
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(published, "HOME", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ConnectionError, match=r"set TOPREACH_DATA .*simulate_county\(\)"):
            cook_county()
    assert not list((remote / "cache" / "topreach" / "cook_county").iterdir())


def test_interrupted_download_leaves_nothing(remote, monkeypatch):
    class Broken:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def read(self, _):
            raise KeyboardInterrupt

    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: Broken())
    with pytest.raises(KeyboardInterrupt):
        find_folder("f", "cook_county", published.COOK_COUNTY, "http://127.0.0.1", None)
    assert not list((remote / "cache" / "topreach" / "cook_county").iterdir())


def test_public_home():
    pattern = r"https://raw\.githubusercontent\.com/tufts-ml/decision-aware-topk/91b7829\w{33}/data"
    assert re.fullmatch(pattern, published.HOME)


# ---- the simulated county ------------------------------------------------------------------------

# Cook County's figures, periods 2–8, from the published files.
COOK_MEAN = [0.773, 0.835, 0.809, 0.910, 1.269, 1.348, 1.391]
COOK_VARIANCE = [1.321, 1.689, 1.815, 2.151, 3.666, 4.155, 4.199]
COOK_ZEROS = [0.538, 0.532, 0.544, 0.520, 0.435, 0.431, 0.430]
COOK_NEXT_YEAR_CORRELATION = [0.461, 0.515, 0.580, 0.615, 0.654, 0.668]


def all_counts(splits):
    return torch.cat([splits.train.y, splits.valid.y, splits.test.y]).double().numpy()


def next_year_correlation(y):
    return [np.corrcoef(y[t], y[t + 1])[0, 1] for t in range(len(y) - 1)]


@needs_data
def test_stored_figures_are_those_of_the_real_set():
    y = all_counts(cook_county())
    np.testing.assert_allclose(y.mean(axis=1), COOK_MEAN, atol=6e-4)
    np.testing.assert_allclose(y.var(axis=1, ddof=1), COOK_VARIANCE, atol=6e-4)
    np.testing.assert_allclose((y == 0).mean(axis=1), COOK_ZEROS, atol=6e-4)
    np.testing.assert_allclose(next_year_correlation(y), COOK_NEXT_YEAR_CORRELATION, atol=6e-4)


def test_simulated_county_has_the_real_figures():
    """Averages over five seeds against Cook County's.

    Bounds: the difference measured over 40 seeds plus 3 standard errors of an average over five.
    """
    rows = []
    for seed in range(5):
        with pytest.warns(UserWarning, match="SIMULATED"):
            splits = simulate_county(seed)
        y = all_counts(splits)
        last = figures(baselines.last_period(splits.test), splits.test, 100)
        mean = figures(baselines.historical_mean(splits.test, 5), splits.test, 100)
        rows.append(
            [
                np.abs(y.mean(axis=1) - COOK_MEAN).max(),
                np.log(y.var(axis=1) / COOK_VARIANCE).mean(),
                ((y == 0).mean(axis=1) - COOK_ZEROS).mean(),
                np.mean(np.subtract(next_year_correlation(y), COOK_NEXT_YEAR_CORRELATION)),
                *np.subtract(last, (1.069, 1.659, 0.748)),
                *np.subtract(mean, (0.943, 1.455, 0.820)),
                y.max(),
            ]
        )
    average = np.mean(rows, axis=0)
    bounds = {
        "mean": 0.08,
        "variance": 0.14,
        "zeros": 0.02,
        "correlation": 0.03,
        "last_mae": 0.06,
        "last_rmse": 0.12,
        "last_bpr": 0.045,
        "mean_mae": 0.035,
        "mean_rmse": 0.085,
        "mean_bpr": 0.03,
    }
    for (name, bound), value in zip(bounds.items(), average[:-1], strict=True):
        assert abs(value) < bound, (name, value)
    assert 15 < average[-1] < 45  # the largest count; 24 in the real set


def test_simulated_county_form(simulated):
    train, valid, test = simulated
    assert (train.times, valid.times, test.times) == ([2, 3, 4, 5], [6], [7, 8])
    assert all(part.source == "simulated" for part in simulated)
    assert all(site.startswith("99999") and len(site) == 11 for site in train.site_ids)
    assert train.num_sites == 1328
    x = torch.cat([part.x for part in simulated])
    lags = [train.feature_names.index(f"prev_deaths_0{back}back") for back in (5, 4, 3, 2, 1)]
    for part in simulated:
        assert torch.equal(part.batch(window=5).history, part.x[:, :, lags])
    assert (x[:4, :, lags[0]] == 0).all()  # the same trap as in the real set
    themes = [i for i, name in enumerate(train.feature_names) if name.startswith("svi")]
    assert len(themes) == 5
    assert x[..., themes].min() >= 0
    assert x[..., themes].max() <= 1


@needs_data
def test_simulated_county_has_the_real_feature_names(simulated):
    assert simulated.train.feature_names == cook_county().train.feature_names


def test_simulated_county_neighbours(simulated):
    """The spatial lag is the mean of last year's counts over the six nearest sites."""
    test = simulated.test
    at = {name: test.x[0, :, i].double().numpy() for i, name in enumerate(test.feature_names)}
    place = np.column_stack([at["INTPTLAT"], at["INTPTLON"] * np.cos(np.deg2rad(41.8))])
    for s in range(0, 1328, 97):
        nearest = np.argsort(((place - place[s]) ** 2).sum(axis=1))[1:7]
        around = at["prev_deaths_01back"][nearest].mean()
        assert at["deaths_sp_lag"][s] == pytest.approx(around, abs=1e-6)


def test_seeds():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, again, other = simulate_county(1), simulate_county(1), simulate_county(2)
        assert torch.equal(simulate_county().test.y, simulate_county(0).test.y)
    assert torch.equal(one.train.x, again.train.x)
    assert torch.equal(one.test.y, again.test.y)
    assert not torch.equal(one.test.y, other.test.y)
    for seed in (-1, 1.5, True, "0"):
        with pytest.raises(ValueError, match="seed must be a whole number"):
            simulate_county(seed)


# ---- Massachusetts ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twin():
    with pytest.warns(UserWarning, match="SIMULATED"):
        return simulate_massachusetts(train=range(2006, 2018))


@pytest.fixture(scope="module")
def ma_table(twin):
    """The simulated panel of ten years and 40 tracts as a file that ma_overdose reads."""
    frame = pd.concat([part.to_frame(site="geoid", time="year", count="deaths") for part in twin])
    frame = frame[frame["geoid"] <= "99999004000"]
    return frame.assign(geoid=frame["geoid"].str.replace("99999", "25001"))


@pytest.fixture
def ma_file(ma_table, tmp_path):
    path = tmp_path / "ma.csv"
    ma_table.to_csv(path, index=False)
    return path


def test_ma_overdose_follows_the_papers_protocols(ma_file, ma_table):
    """2023 section 3: W = 5, 2013-2017, 2018, 2019-2020; 2025 section 5.2: 2011-2018, 2019,
    2020-21."""
    train, valid, test = ma_overdose(ma_file)
    assert (train.times, valid.times, test.times) == (list(range(2013, 2018)), [2018], [2019, 2020])
    assert train.site_ids[0] == "25001000100"
    assert train.feature_names[:5] == [f"svi_theme{i}" for i in (1, 2, 3, 4)] + ["svi_total"]
    counts = ma_table.pivot(index="year", columns="geoid", values="deaths")
    history = train.batch(window=5).history
    np.testing.assert_array_equal(history[0].numpy().T, counts.loc[2008:2012].to_numpy())
    np.testing.assert_array_equal(test.batch(window=5).history[1].T, counts.loc[2015:2019])
    other = ma_overdose(ma_file, train=range(2011, 2019), valid=[2019], test=[2020])
    assert (other.train.times[0], other.valid.times, other.test.times) == (2011, [2019], [2020])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="svi_total"), "got none named svi_total"),
        (lambda t: t.assign(geoid=t["geoid"].str[1:]), "geoid must be 11 digits beginning with 25"),
        (lambda t: t.assign(svi_theme2=-999.0), r"svi_theme2 must be in \[0, 1\], got -999"),
        (lambda t: t.iloc[1:], "must have a row for every site and time"),
        (lambda t: t[t["year"] != 2014], "must run without gaps"),
        (lambda t: t[t["year"] > 2009], "at least 5 years after the first year, 2010, got 2013"),
        (lambda t: t.assign(deaths=-1), "deaths"),
        (lambda t: t[t["year"] < 2020], "test must be years from 2006 to 2019"),
    ],
)
def test_ma_overdose_refuses_a_file_of_another_form(ma_table, tmp_path, change, message):
    path = tmp_path / "ma.csv"
    change(ma_table).to_csv(path, index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=message):
            ma_overdose(path)


def test_ma_overdose_refuses_years_out_of_order(ma_file):
    with pytest.raises(ValueError, match="ascending years"):
        ma_overdose(ma_file, valid=[2017])
    with pytest.raises(ValueError, match="valid must be years"):
        ma_overdose(ma_file, valid=[])
    with pytest.raises(FileNotFoundError, match="use simulate_massachusetts"):
        ma_overdose(ma_file.with_name("none.csv"))


def test_simulated_massachusetts_has_the_papers_figures():
    """Chance and the mean of seven years against Table 1 of the 2023 paper, .243 and .587.

    Bounds: the difference measured over 40 seeds plus 3 standard errors of an average over three.
    """
    rows = []
    for seed in range(3):
        with pytest.warns(UserWarning, match="SIMULATED"):
            test = simulate_massachusetts(seed).test
        rows.append(
            [
                figures(forecast, test, 100)[2]
                for forecast in (baselines.chance(test), baselines.historical_mean(test, 7))
            ]
        )
    chance, mean = np.mean(rows, axis=0)
    assert abs(chance - 0.243) < 0.0113
    assert abs(mean - 0.587) < 0.048


def test_simulated_massachusetts_form(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, again, other = (simulate_massachusetts(seed) for seed in (1, 1, 2))
        place = np.column_stack([np.linspace(41.5, 42.5, 1620), np.linspace(-73, -70, 1620)])
        path = tmp_path / "centroids.csv"
        pd.DataFrame(place, columns=["lat", "lon"]).to_csv(path, index=False)
        placed = simulate_massachusetts(1, centroids=path)
        assert torch.equal(one.train.x, again.train.x)
        assert torch.equal(one.test.y, again.test.y)
        assert not torch.equal(one.test.y, other.test.y)
        assert one.test.num_sites == 1620
        assert one.train.history_y.shape == (12, 1620)
        # Statewide totals of 2016 and 2020; the gamma mixing adds a third to a Poisson sum's
        # variance.
        assert abs(one.train.y[3].sum() - 2100) < 6 * 2100**0.5
        assert abs(one.test.y[1].sum() - 2110) < 6 * 2110**0.5
        ranks = one.test.x[0, :, :5].sort(dim=0).values  # themes are percentile ranks
        torch.testing.assert_close(ranks, torch.linspace(0, 1, 1620)[:, None].expand(-1, 5))
        lat, lon = one.test.x[0, :, 5:].T
        assert 41.2 < lat.min() < lat.max() < 43.2 and -73.6 < lon.min() < lon.max() < -70.3
        np.testing.assert_allclose(placed.test.x[0, :, 5:].numpy(), place, rtol=1e-6)
        pd.DataFrame(place[1:], columns=["lat", "lon"]).to_csv(path, index=False)
        with pytest.raises(ValueError, match="1620 rows of finite lat and lon, got 1619"):
            simulate_massachusetts(centroids=path)
        pd.DataFrame(place, columns=["lat", "lon"]).replace(41.5, np.nan).to_csv(path, index=False)
        with pytest.raises(ValueError, match="got 1620 rows, 1 values not finite"):
            simulate_massachusetts(centroids=path)
        pd.DataFrame(place, columns=["lat", "x"]).to_csv(path, index=False)
        with pytest.raises(ValueError, match="columns lat and lon"):
            simulate_massachusetts(centroids=path)
        with pytest.raises(FileNotFoundError, match="centroids must be an existing"):
            simulate_massachusetts(centroids=tmp_path / "none.csv")
        with pytest.raises(ValueError, match="simulate_massachusetts: seed must be"):
            simulate_massachusetts(-1)


# ---- baselines -----------------------------------------------------------------------------------


def test_baselines_by_hand():
    y = torch.tensor([[4.0, 0], [1, 2], [3, 5], [2, 2]])
    panel = Panel(torch.zeros(4, 2, 0), y, ["a", "b"], [1, 2, 3, 4], [], history_y=[[8, 2]])
    assert baselines.last_period(panel).tolist() == [[8, 2], [4, 0], [1, 2], [3, 5]]
    mean = baselines.historical_mean(panel)
    torch.testing.assert_close(mean[3], torch.tensor([16 / 4, 9 / 4]))
    windowed = baselines.historical_mean(panel, window=2)
    assert windowed.tolist() == [[8, 2], [6, 1], [2.5, 1], [2, 3.5]]
    assert baselines.chance(panel).tolist() == [[0, 0]] * 4
    part = panel.select_times([2, 4])
    assert torch.equal(baselines.historical_mean(part), mean[[1, 3]])


def test_baselines_errors():
    panel = Panel(torch.zeros(2, 1, 0), [[1], [2]], ["a"], [1, 2], [])
    with pytest.raises(ValueError, match="last_period: panel must have counts before"):
        baselines.last_period(panel)
    with pytest.raises(ValueError, match="window must be a whole number"):
        baselines.historical_mean(panel.select_times(2), window=0)
    y = [[1.0], [np.nan], [np.nan]]
    unknown = Panel(torch.zeros(3, 1, 0), y, ["a"], [1, 2, 3], [], counts="optional")
    assert baselines.last_period(unknown.select_times(2)).tolist() == [[1.0]]
    with pytest.raises(ValueError, match="known counts in the period before 3"):
        baselines.last_period(unknown.select_times(3))
