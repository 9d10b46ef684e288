"""Predict the quality of a red wine from what the laboratory measured."""

import csv
import pickle
from pathlib import Path

import numpy as np
from prefect import flow, task

COLUMNS = ["alcohol", "volatile acidity", "sulphates", "total sulfur dioxide"]
TARGET = "quality"


@task(name="Read data")
def read_data(filename):
    with Path(filename).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    # 240 wines stand in the file twice; one of a pair in each part would make the error look too good.
    unique = {tuple(row.items()): row for row in rows}
    return list(unique.values())


@task(name="Fit preprocessor")
def fit_preprocessor(rows):
    values = np.array([[float(row[column]) for column in COLUMNS] for row in rows])
    return {"columns": COLUMNS, "mean": values.mean(axis=0), "scale": values.std(axis=0)}


@task(name="Train model")
def train_model(rows, preprocessor):
    weights, *_ = np.linalg.lstsq(transform(rows, preprocessor), qualities(rows), rcond=None)
    return weights


@task(name="Cross-validate")
def cross_validate(rows, folds=5):
    fold = np.random.default_rng(42).permutation(len(rows)) % folds
    errors = []
    for held_out in range(folds):
        training = [row for row, number in zip(rows, fold, strict=True) if number != held_out]
        test = [row for row, number in zip(rows, fold, strict=True) if number == held_out]
        preprocessor = fit_preprocessor.fn(training)
        model = train_model.fn(training, preprocessor)
        errors.extend(transform(test, preprocessor) @ model - qualities(test))
    return float(np.sqrt(np.mean(np.square(errors))))


@task(name="Save models")
def save_models(preprocessor, model):
    Path("models").mkdir(exist_ok=True)
    for name, value in {"preprocessor": preprocessor, "model": model}.items():
        with Path("models", f"{name}.pkl").open("wb") as file:
            pickle.dump(value, file)


def transform(rows, preprocessor):
    values = np.array([[float(row[column]) for column in preprocessor["columns"]] for row in rows])
    scaled = (values - preprocessor["mean"]) / preprocessor["scale"]
    return np.column_stack([np.ones(len(rows)), scaled])


def qualities(rows):
    return np.array([float(row[TARGET]) for row in rows])


@flow(name="main")
def main():
    rows = read_data(Path(__file__).parent / "data" / "winequality-red.csv")
    rmse = cross_validate(rows)
    print(f"RMSE: {rmse:.3f}")
    preprocessor = fit_preprocessor(rows)
    model = train_model(rows, preprocessor)
    save_models(preprocessor, model)
    return rmse


if __name__ == "__main__":
    main()
