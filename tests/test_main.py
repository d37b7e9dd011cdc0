import subprocess
import sys

import jax
import pytest

import vijax.__main__ as demonstration


def run(*arguments):
    command = [sys.executable, "-m", "vijax", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_help():
    out = run("--help")
    assert all(option in out for option in ("--seed", "--no-nuts", "--output"))


@pytest.mark.slow
def test_without_nuts(tmp_path):
    out = run("--no-nuts", "--seed", 3, "--output", tmp_path / "x.png")
    assert "theta[7]" in out
    assert "NUTS" not in out
    assert "k-hat" in out
    assert (tmp_path / "x.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_fit_is_close_to_nuts():
    rows, _, _ = demonstration.run_vi(0)
    # NumPyro mixes dtypes and ranks.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        nuts, _ = demonstration.run_nuts(0)
    for name in ("mu", *(f"theta[{i}]" for i in range(8))):
        difference = (rows[name].mean() - nuts[name].mean()) / nuts[name].std()
        assert abs(difference) < 0.15, name
        assert abs(rows[name].std() / nuts[name].std() - 1) < 0.2, name
