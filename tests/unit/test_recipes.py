"""Recipes on the command line: text, file, single changes; as a rule writes them they come back equal."""

import json

import pytest

from bitdistiller.config import Mix, Model, TrainRecipe
from bitdistiller.errors import InputError
from bitdistiller.recipes import as_text, load_experiment, load_recipe

RECIPE = {"quantization": {"format": "int2", "group_size": 64}, "training": {"epochs": 2}}


def test_text_and_file_are_the_same(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("quantization: {format: int2, group_size: 64}\ntraining:\n  epochs: 2\n")
    forms = [json.dumps(RECIPE), json.dumps(RECIPE, indent=2), path.read_text(), str(path)]
    loaded = [load_recipe(TrainRecipe, form, []) for form in forms]
    assert all(recipe == TrainRecipe.model_validate(RECIPE) for recipe in loaded)


def test_changes_overrule_the_recipe_in_order():
    changes = ["quantization.format=int3", "training.gamma=reference", "training.epochs=3", "training.epochs=4.5"]
    recipe = load_recipe(TrainRecipe, json.dumps(RECIPE), changes)
    assert (recipe.quantization.format, recipe.quantization.group_size) == ("int3", 64)
    assert (recipe.training.gamma, recipe.training.epochs) == ("reference", 4.5)


def test_changes_are_yaml_and_make_sections():
    recipe = load_recipe(
        Mix, None, ["teacher=t", "sources=[{dataset: alpaca, samples: 3}]", "generation.temperature=0", "seed=7"]
    )
    assert (recipe.sources[0].samples, recipe.generation.temperature, recipe.seed) == (3, 0.0, 7)


def test_what_a_rule_passes_comes_back_equal_however_long_it_is():
    sources = [{"dataset": "prompts", "samples": n, "path": f"folder of data/{n}'s.jsonl"} for n in range(1, 30)]
    mix = Mix(teacher="t", sources=sources)
    text = as_text(mix)
    assert len(text) > 1000
    assert load_recipe(Mix, text, []) == mix
    plain = Mix(teacher="t" * 300, sources=[{"dataset": "alpaca", "samples": 1}])
    assert load_recipe(Mix, as_text(plain), []) == plain  # no slash: as long as no file name can be
    assert as_text(Mix(teacher="t", sources=sources, shards=8, seed=42)) == text


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("{a: [", [], "--recipe: is not YAML (while parsing"),
        ("missing.yaml", [], "--recipe: give a mapping (YAML or JSON), or the path of a file that holds one"),
        ("[1, 2]", [], "--recipe: give a mapping"),
        ("x" * 5000, [], "--recipe: give a mapping"),
        (json.dumps(RECIPE), ["training.epochs"], "--set training.epochs: give key=value"),
        (json.dumps(RECIPE), ["=3"], "--set =3: give key=value"),
        (json.dumps(RECIPE), ["training.epochs=["], "--set training.epochs=[: is not YAML"),
        (json.dumps(RECIPE), ["training.epochs.more=1"], "--set training.epochs.more: epochs is not a section"),
        (json.dumps(RECIPE), ["training.bogus=1"], "--recipe: training.bogus: unknown key; accepted: "),
        (
            json.dumps(RECIPE),
            ["quantization.format=int9"],
            "--recipe: quantization.format: unknown 'int9'; accepted: int2",
        ),
        (None, [], "--recipe: quantization: field required"),
    ],
)
def test_refusals_are_one_line(text, changes, message):
    with pytest.raises(InputError) as error:
        load_recipe(TrainRecipe, text, changes)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_refused_union_is_explained():
    with pytest.raises(InputError, match=r"--recipe: give exactly one of path, hub and demo \(found none\)"):
        load_recipe(Model, None, [])


def test_experiment_files(tmp_path):
    path = tmp_path / "experiment.yaml"
    with pytest.raises(InputError, match=r"experiment\.yaml: no such file"):
        load_experiment(path)
    path.write_text("models: {m: {hub: a/b}}\nruns: {r: {model: m, method: 16-bit}}\n")
    assert list(load_experiment(path).runs) == ["r"]
    for content, message in (
        ("models: [", "is not YAML"),
        ("", "models: field required"),
        ("- 1", "valid dictionary"),
        ("models: {m: {hub: a/b}}\nruns: {r: {model: m, metod: x}}", r"runs\.r\.metod: unknown key; accepted: calib"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=rf"^{path}: .*{message}"):
            load_experiment(path)
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(InputError, match="cannot be read"):
        load_experiment(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_experiment(tmp_path)
