"""The plan of an experiment: readable paths, recipes of jobs, and the checks before the first job."""

import json
from pathlib import Path

import pytest

from bitdistiller.config import Experiment, Resources
from bitdistiller.errors import InputError
from bitdistiller.plan import Plan
from bitdistiller.recipes import as_text, parse

GPUS = Resources(generate={"gpu": 1}, evaluate={"gpu": 1})


def model_directory(path, **changes):
    path.mkdir()
    shape = {"hidden_size": 128, "intermediate_size": 384, "vocab_size": 100}
    (path / "config.json").write_text(json.dumps({**shape, **changes}))
    return str(path)


@pytest.fixture
def experiment(tmp_path):
    """`experiment(section={...}, ...)`: a good experiment on a local model, with some sections extended."""
    good = {
        "models": {"m": {"path": model_directory(tmp_path / "m")}, "demo": {"demo": {}}},
        "calibrations": {"pile": {"texts": "pile"}, "demo": {"texts": "demo"}},
        "mixes": {"x": {"teacher": "m", "sources": [{"dataset": "alpaca", "samples": 10}]}},
        "trainings": {"t": {}},
        "evaluations": {"e": {"kind": "perplexity", "dataset": "wikitext2", "label": "PPL"}},
        "runs": {
            "full": {"model": "m", "method": "16-bit"},
            "int2": {
                "model": "m",
                "method": "bitdistiller",
                "format": "int2",
                "calibration": "pile",
                "mix": "x",
                "training": "t",
            },
            "clip3": {
                "model": "m",
                "method": "clip",
                "format": "int3",
                "calibration": "pile",
                "scale_dtype": "float32",
            },
        },
    }

    def make(**sections):
        return Plan(parse(Experiment, {key: {**good[key], **sections.get(key, {})} for key in good}, "config"))

    return make


def run(plan_run, **changes):
    return {**plan_run.model_dump(exclude_defaults=True), **changes}


def test_nodes_of_a_run_are_part_of_no_recipe(experiment):
    one = experiment()
    two = experiment(runs={"int2": run(one.run("int2"), nodes=2)})
    assert two.run("int2").nodes == 2
    for recipe in (Plan.train_recipe, Plan.export_recipe, Plan.clip_recipe, Plan.warm_start_recipe):
        assert as_text(recipe(two, "int2")) == as_text(recipe(one, "int2"))
    assert as_text(two.table_recipe()) == as_text(one.table_recipe())


def test_layouts_are_outputs_of_their_own(experiment):
    one = experiment()
    two = experiment(runs={"int2": run(one.run("int2"), layouts=["gptq-v2", "gguf-q2_0"])})
    assert [str(path) for path in two.conversions] == [
        "results/m/int2/layouts/gptq-v2",
        "results/m/int2/layouts/gguf-q2_0",
    ]
    assert one.conversions == []
    assert two.table_recipe().runs["int2"].layouts == ["gptq-v2", "gguf-q2_0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "int3", "layouts": ["gguf-q2_0"]}, "gguf-q2_0 does not hold this run; accepted: int2 without pad"),
        ({"format": "nf3", "layouts": ["gptq-v2"]}, "gptq-v2 does not hold this run; accepted: int2, int3, int4"),
        ({"pad": True, "layouts": ["gguf-q4_1"]}, "gguf-q4_1 does not hold this run"),
        ({"method": "16-bit", "layouts": ["dense"]}, "takes no"),
    ],
)
def test_a_layout_that_cannot_hold_a_run_is_refused_at_once(experiment, changes, message):
    with pytest.raises(InputError, match=message):
        experiment(runs={"int2": run(experiment().run("int2"), **changes)})


def test_paths(experiment):
    plan = experiment()
    paths = {
        plan.base("m"): "m/base",
        plan.shard("x", 3): "m/mixes/x/shards/00003",
        plan.mix("x"): "m/mixes/x/mix",
        plan.tokens("int2"): "m/mixes/x/tokens-1024",
        plan.cache("int2", 3): "m/mixes/x/teacher-hidden-1024/shards/00003",
        plan.clip("int2"): "m/clip/pile-int2-g128",
        plan.clip("clip3"): "m/clip/pile-int3-g128-scale32",
        plan.train("int2"): "m/int2/train",
        plan.export("int2"): "m/int2/export",
        plan.evaluation("int2", "e"): "m/int2/evaluation/e",
        plan.evaluated_model("int2"): "m/int2/export/checkpoint",
        plan.evaluated_model("full"): "m/base/model",
        plan.tables: "tables/demo",
    }
    assert {str(path.relative_to("results")) for path in paths} == set(paths.values())
    assert all(path == Path("results") / expected for path, expected in paths.items())
    assert list(plan.evaluations()) == [("full", "e"), ("int2", "e"), ("clip3", "e")]


def test_grams_are_shared_by_formats_and_free_of_the_search(experiment):
    sharded = {"texts": "pile", "shards": 3, "grid_steps": 20, "refinement": 2, "tokens": 99}
    plan = experiment(calibrations={"pile": sharded, "whole": {"texts": "pile"}})
    padded = run(plan.run("clip3"), calibration="whole", pad=True)
    plan = experiment(calibrations={"pile": sharded, "whole": {"texts": "pile"}}, runs={"padded": padded})
    shards = [Path("results/m/grams/pile-g128/shards") / f"{shard:05d}" for shard in range(3)]
    assert plan.gram_shards("int2") == plan.gram_shards("clip3") == shards
    assert plan.gram_shards("padded") == []
    assert sorted(plan.grams) == [("m", "pile-g128"), ("m", "whole-g128-pad")]
    recipe = plan.gram_recipe("int2").model_dump(exclude_defaults=True)
    assert recipe == {"calibration": {"texts": "pile", "tokens": 99}}
    assert plan.gram_recipe("padded").pad
    assert plan.clip_recipe("int2").calibration.shards == 3


def test_a_heading_is_no_part_of_an_evaluations_recipe(experiment):
    assert experiment().evaluate_recipe("full", "e").evaluation.label is None


def test_the_demo_corpus_takes_its_place(experiment):
    sources = [{"dataset": "demo-math", "samples": 3}, {"dataset": "alpaca", "samples": 3}]
    plan = experiment(
        mixes={"x": {"teacher": "demo", "sources": sources}},
        evaluations={"d": {"kind": "math", "dataset": "demo-math"}},
        runs={"c": {"model": "demo", "method": "clip", "format": "int2", "calibration": "demo", "evaluations": ["d"]}},
    )
    corpus = Path("results/demo/base/corpus")
    assert [source.path for source in plan.mix_recipe("x").sources] == [corpus / "demo-math.train.jsonl", None]
    assert plan.clip_recipe("c").calibration.path == corpus / "demo-calibration.train.jsonl"
    assert plan.evaluate_recipe("c", "d").evaluation.path == corpus / "demo-math.test.jsonl"


def test_a_good_experiment_passes(experiment):
    experiment().check()


def refused(plan):
    with pytest.raises(InputError) as error:
        plan.check()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_model_directory(experiment, tmp_path):
    plan = experiment(models={"n": {"path": str(tmp_path / "n")}})
    assert refused(plan) == f"models.n.path: {tmp_path / 'n'} is not a model directory (no config.json in it)"


@pytest.mark.parametrize("size", [96, 256])
def test_a_group_size_that_does_not_divide(experiment, size):
    plan = experiment()
    plan = experiment(runs={"int2": run(plan.run("int2"), group_size=size)})
    message = (
        f"runs.int2.group_size: {size} does not divide hidden_size 128 of model m; accepted: a divisor, or pad: true"
    )
    assert refused(plan) == message
    experiment(runs={"int2": run(plan.run("int2"), pad=True)}).check()


def test_a_group_size_that_divides_one_width_only(experiment, tmp_path):
    odd = model_directory(tmp_path / "odd", intermediate_size=320)
    plan = experiment(models={"m": {"path": odd}})
    assert refused(plan).startswith("runs.int2.group_size: 128 does not divide intermediate_size 320 of model m; ")


def test_vocabularies_that_differ(experiment, tmp_path):
    other = model_directory(tmp_path / "other", vocab_size=99)
    plan = experiment(
        models={"other": {"path": other}},
        mixes={"x": {"teacher": "other", "sources": [{"dataset": "alpaca", "samples": 1}]}},
    )
    assert refused(plan) == (
        "runs.int2: the vocabularies of student m (100) and of teacher other (99) differ; take models of one"
    )


def test_another_teacher_than_the_writer_of_the_mix(experiment, tmp_path):
    models = {name: {"path": model_directory(tmp_path / name)} for name in ("big", "writer")}
    mix = {"teacher": "writer", "sources": [{"dataset": "alpaca", "samples": 1}]}
    cache = {"teacher": "cached", "precision": "float32", "max_length": 512, "cache": {"kind": "topk", "shards": 3}}
    more = {"models": models, "mixes": {"y": mix}, "trainings": {"cached": cache}}
    plan = experiment()
    runs = {
        "a": run(plan.run("int2"), teacher="big", mix="y", training="cached"),
        "b": run(plan.run("int2"), model="writer", mix="y", training="cached"),
    }
    plan = experiment(**more, runs=runs)
    plan.check()
    assert (plan.teacher("a"), plan.teacher("b")) == ("big", "writer")
    assert plan.tokens("a") == Path("results/writer/mixes/y/tokens-512-m")
    assert plan.tokens("b") == Path("results/writer/mixes/y/tokens-512")
    shards = [Path(f"results/big/mixes/y/teacher-top32-512-m-float32-3shards/shards/0000{n}") for n in range(3)]
    assert plan.cache_shards("a") == shards
    assert plan.cache_shards("int2") == []
    assert plan.train_inputs("a") == ["--teacher results/big/base/model", *(f"--cache {path}" for path in shards)]
    assert plan.train_inputs("int2") == []
    assert plan.tokenize_recipe("a").max_length == 512
    recipe = plan.cache_recipe("a")
    assert (recipe.kind, recipe.k, recipe.precision) == ("topk", 32, "float32")
    assert sorted(plan.caches) == [
        ("big", "y", "teacher-top32-512-m-float32-3shards"),
        ("writer", "y", "teacher-top32-512-float32-3shards"),
    ]
    assert set(plan.token_files) == {
        ("m", "x", "tokens-1024"),
        ("writer", "y", "tokens-512"),
        ("writer", "y", "tokens-512-m"),
    }


def test_a_run_with_trained_scales_and_a_warm_start(experiment):
    training = {"train_scales": True, "warm_start": {"samples": 64}, "max_length": 512, "learning_rate": 1e-3}
    plan = experiment()
    plan = experiment(trainings={"w": training}, runs={"warm": run(plan.run("int2"), training="w")})
    plan.check()
    directory = Path("results/m/warm/warm-start")
    assert plan.warm_start("warm") == [directory]
    assert plan.warm_start("int2") == []
    assert plan.train_inputs("warm") == [f"--warm-start {directory}"]
    assert json.loads(as_text(plan.warm_start_recipe("warm"))) == {
        "quantization": {"format": "int2"},
        "warm_start": {"samples": 64},
        "train_scales": True,
        "max_length": 512,
    }


def test_scales_of_a_format_without_such_a_grid(experiment):
    plan = experiment()
    runs = {"warm": run(plan.run("int2"), training="w", format="nf3")}
    with pytest.raises(
        InputError, match=r"runs\.warm\.training: train_scales: nf3 has no scales to train; accepted: int2"
    ):
        experiment(trainings={"w": {"train_scales": True}}, runs=runs)


@pytest.mark.parametrize(("size", "accepted"), [(99, False), (128, True), (101, False), (2048, False)])
def test_a_teacher_of_another_vocabulary(experiment, tmp_path, size, accepted):
    other = model_directory(tmp_path / "other", vocab_size=size)
    plan = experiment()
    plan = experiment(models={"other": {"path": other}}, runs={"int2": run(plan.run("int2"), teacher="other")})
    if accepted:
        plan.check()
    else:
        assert refused(plan) == (
            f"runs.int2: the vocabularies of student m (100) and of teacher other ({size}) differ; take models of one"
        )


def test_a_teacher_for_a_run_that_trains_nothing(experiment):
    plan = experiment()
    with pytest.raises(InputError, match=r"runs\.clip3: method clip takes no teacher"):
        experiment(runs={"clip3": run(plan.run("clip3"), teacher="m")})
    with pytest.raises(InputError, match=r"runs\.int2\.teacher: 'nobody' is not defined; defined: m, demo"):
        experiment(runs={"int2": run(plan.run("int2"), teacher="nobody")})


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"calibrations": {"c": {"texts": "text", "path": "nowhere.txt"}}}, "calibrations.c.path"),
        (
            {"evaluations": {"f": {"kind": "perplexity", "dataset": "text", "path": "nowhere.txt"}}},
            "evaluations.f.path",
        ),
        (
            {"mixes": {"y": {"teacher": "m", "sources": [{"dataset": "math", "samples": 1, "path": "nowhere.txt"}]}}},
            "mixes.y.sources.0.path",
        ),
    ],
)
def test_missing_local_files(experiment, sections, key):
    assert refused(experiment(**sections)) == f"{key}: nowhere.txt: no such file"


def test_the_demo_corpus_needs_a_demo_model(experiment):
    plan = experiment()
    message = "models.m: dataset {} needs a demo model, or give a path"
    clip = experiment(runs={"clip3": run(plan.run("clip3"), calibration="demo")})
    assert refused(clip) == message.format("demo-calibration")
    mix = experiment(mixes={"x": {"teacher": "m", "sources": [{"dataset": "demo-text", "samples": 1}]}})
    assert refused(mix) == message.format("demo-text")
    evaluation = experiment(evaluations={"e": {"kind": "code", "dataset": "demo-code"}})
    assert refused(evaluation) == message.format("demo-code")


def test_a_library_s_run(experiment, tmp_path, monkeypatch):
    monkeypatch.delenv("BASELINES_PYTHON", raising=False)
    library = {"model": "m", "method": "gptq", "format": "int2", "calibration": "pile"}
    plan = experiment(runs={"gptq": library})
    assert plan.baseline("gptq") == Path("results/m/gptq/baseline")
    assert plan.packed_weights("gptq") == Path("results/m/gptq/baseline/quantised")
    assert plan.packed_weights("int2") == Path("results/m/int2/train/student")
    assert plan.packed_weights("clip3") == Path("results/m/base/model")
    recipe = plan.baseline_recipe("gptq")
    assert (recipe.method, recipe.calibration) == ("gptq", plan.clip_recipe("int2").calibration)
    assert "gptq" not in plan.clips.values()
    assert plan.missing_environment(tmp_path).startswith(
        "runs.gptq: method gptq needs the baselines' environment; run `make"
    )
    (tmp_path / ".venv-baselines").mkdir()
    (tmp_path / ".venv-baselines" / ".ready").touch()
    assert plan.missing_environment(tmp_path) == ""
    assert experiment().missing_environment(tmp_path / "other") == ""


def test_what_vllm_needs(experiment, tmp_path, monkeypatch):
    monkeypatch.delenv("SERVE_PYTHON", raising=False)
    math = {"kind": "math", "dataset": "gsm8k"}
    source = {"dataset": "alpaca", "samples": 1}
    plan = experiment(
        mixes={"v": {"teacher": "m", "sources": [source], "generation": {"engine": "vllm"}}},
        evaluations={"math": math, "served": {**math, "engine": "vllm"}},
    )
    serve, train = "serve", "train"
    assert (plan.mix_kind("v"), plan.mix_kind("x")) == (serve, train)
    assert [plan.evaluation_kind("int2", name) for name in ("e", "math", "served")] == [train, train, serve]
    on_gpus = Plan(plan.experiment.model_copy(update={"resources": GPUS}))
    assert on_gpus.mix_kind("x") == serve
    assert [on_gpus.evaluation_kind("full", name) for name in ("e", "math")] == [train, serve]
    assert on_gpus.evaluation_kind("int2", "math") == train
    missing = plan.missing_environment(tmp_path)
    assert missing.startswith(
        "mixes.v.generation.engine: vllm needs the serving environment; run `make env-serve` once"
    )
    assert plan.missing_environment(tmp_path, {"evaluate"}).startswith("evaluations.served.engine: vllm needs the serv")
    assert plan.missing_environment(tmp_path, {"train", "baseline"}) == ""
    sharded = {"served": {**plan.experiment.evaluations["served"].model_dump(exclude_defaults=True), "shards": 2}}
    plan = experiment(evaluations=sharded)
    assert plan.missing_environment(tmp_path, {"evaluate_shard"}).startswith("evaluations.served.engine: vllm needs")
    assert plan.missing_environment(tmp_path, {"evaluate"}) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "nf3"}, "method gptq has no format nf3; accepted: int2, int3, int4"),
        ({"pad": True}, "method gptq takes no pad: its libraries need a group size that divides"),
        ({"calibration": None}, "method gptq needs calibration"),
        ({"training": "t"}, "method gptq takes no training"),
    ],
)
def test_what_no_library_has_is_refused_at_once(experiment, change, message):
    library = {"model": "m", "method": "gptq", "format": "int2", "calibration": "pile"}
    with pytest.raises(InputError, match=r"runs\.gptq: ") as error:
        experiment(runs={"gptq": library | change})
    assert message in str(error.value)
