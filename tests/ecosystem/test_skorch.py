"""skorch and scikit-learn: the layers inside an estimator, searched over, cloned and pickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ecosystem.models import CELLS, LAYERS, Regressor, sines

np = pytest.importorskip("numpy")
skorch = pytest.importorskip("skorch")
sklearn = pytest.importorskip("sklearn")
model_selection = pytest.importorskip("sklearn.model_selection")

Array = Any  # NumPy's, float32


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array]:
    torch.manual_seed(0)
    x, y = sines(120)
    return x.numpy(), y.numpy()


class Seeded(Regressor):
    """Starts from the same weights in every process."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        super().__init__(**options)


def estimator(**options: Any) -> Any:
    return skorch.NeuralNetRegressor(
        Seeded,
        optimizer=torch.optim.Adam,
        lr=0.03,
        max_epochs=20,
        batch_size=20,
        iterator_train__shuffle=False,
        train_split=None,
        verbose=0,
        **options,
    )


def search(jobs: int | None = None) -> Any:
    grid = {"module__cell": list(CELLS), "module__hidden_size": [1, 6]}
    return model_selection.GridSearchCV(estimator(), grid, cv=2, scoring="r2", n_jobs=jobs)


def check(found: Any, data: tuple[Array, Array]) -> None:
    """What a search must have found: a fit to the waves, with one of the wide layers."""
    assert len(found.cv_results_["params"]) == 2 * len(CELLS)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    best = found.best_estimator_
    chosen = best.module_
    assert found.best_params_["module__hidden_size"] == chosen.layer.hidden_size == 6
    assert type(chosen.layer) is LAYERS["rnncells", found.best_params_["module__cell"]]
    assert found.best_score_ > 0.8
    assert best.score(*data) > 0.8


def test_grid_search(data: tuple[Array, Array], tmp_path: Path) -> None:
    found = search().fit(*data)
    check(found, data)
    x = data[0]
    forecast = found.predict(x)
    assert forecast.shape == (len(x), 1)

    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict(x), forecast)
    again.best_estimator_.partial_fit(*data)  # and it trains on
    assert (again.predict(x) != forecast).any()

    best = found.best_estimator_
    best.save_params(f_params=tmp_path / "best.pt")
    fresh = sklearn.clone(best).initialize()
    assert (fresh.predict(x) != forecast).any()
    fresh.load_params(f_params=tmp_path / "best.pt")
    np.testing.assert_array_equal(fresh.predict(x), forecast)


@pytest.mark.parametrize("cell", CELLS)
def test_fits_as_with_torch_nn(cell: str, data: tuple[Array, Array]) -> None:
    """From the same weights on the same batches; in float64, so that training forgives nothing."""
    x, y = (part.astype(np.float64) for part in data)
    options = {"module__cell": cell, "module__dtype": torch.float64, "module__num_layers": 2}
    ours, theirs = estimator(**options), estimator(**options, module__library="torch")
    ours.partial_fit(x, y)
    theirs.partial_fit(x, y)
    losses = ours.history[:, "train_loss"]
    assert losses[-1] < losses[0] / 2
    np.testing.assert_allclose(losses, theirs.history[:, "train_loss"], rtol=1e-8)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_grid_search_in_two_processes(data: tuple[Array, Array]) -> None:
    """joblib's workers: the estimators travel by cloudpickle, both ways."""
    found = search(jobs=2).fit(*data)
    check(found, data)
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"],
        search().fit(*data).cv_results_["mean_test_score"],
    )
