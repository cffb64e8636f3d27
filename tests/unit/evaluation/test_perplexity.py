"""Perplexity against the naive double, and on a real model and text."""

import copy
import gzip
import json
import random

import pytest
from reference.perplexity import naive_perplexity, naive_sliding_perplexity

from bitdistiller.config import EvaluateRecipe
from bitdistiller.errors import DeadlineReached, InputError
from bitdistiller.evaluation import stage as evaluate_stage
from bitdistiller.evaluation.perplexity import Span, chunk_length, chunks, document_texts, text_tokens, windows

TEXT = {"kind": "perplexity", "dataset": "text"}


@pytest.fixture
def path(words, write_lines):
    """A file of forty random documents."""
    rng = random.Random(1)
    return write_lines([{"text": " ".join(rng.choices(words, k=rng.randint(3, 30)))} for _ in range(40)])


def joined_ids(path, tokenizer, count=None):
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()][:count]
    return tokenizer("\n\n".join(texts), add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("length", [2, 17, 64])
def test_equals_the_naive_double(subject, tokenizer, evaluation_of, path, length):
    metrics, predictions, _ = evaluation_of(subject, **TEXT, path=path, chunk_length=length, batch_size=5)
    ids = joined_ids(path, tokenizer)
    metric = metrics["metrics"]["perplexity"]
    assert metric["value"] == pytest.approx(naive_perplexity(subject.model, ids, length), rel=1e-6)
    assert metric["n"] == len(predictions) == len(ids) // length
    assert {line["tokens"] for line in predictions} == {length - 1}
    assert [line["index"] for line in predictions] == list(range(len(predictions)))


def test_chunks_and_documents_are_limited(subject, tokenizer, evaluation_of, path):
    metrics, predictions, _ = evaluation_of(subject, **TEXT, path=path, chunk_length=16, max_chunks=3, max_documents=10)
    expected = naive_perplexity(subject.model, joined_ids(path, tokenizer, 10)[:48], 16)
    assert metrics["metrics"]["perplexity"]["value"] == pytest.approx(expected, rel=1e-6)
    assert metrics["protocol"]["documents"] == 10
    assert metrics["protocol"]["predicted_tokens"] == 3 * 15
    assert len(predictions) == 3
    assert metrics["metrics"]["perplexity"]["total"] == len(joined_ids(path, tokenizer, 10)) // 16


def test_the_chunk_length_follows_the_context():
    assert chunk_length(None, 4096) == 2048
    assert chunk_length(None, 128) == 128
    assert chunk_length(64, 128) == 64
    for wanted in (1, 129):
        with pytest.raises(InputError, match="chunk_length"):
            chunk_length(wanted, 128)


def test_no_special_tokens_and_no_rest(tokenizer):
    ids = text_tokens(["the cat sat", "a dog ran on"], tokenizer)
    assert ids.tolist() == tokenizer.convert_tokens_to_ids("the cat sat a dog ran on".split())  # noqa: SIM905
    assert chunks(len(ids), 3) == [Span(0, 1, 3), Span(3, 4, 6)]
    assert text_tokens(["the cat"], tokenizer, bos=True).tolist()[0] == tokenizer.bos_token_id


def test_a_text_shorter_than_a_chunk_is_refused():
    with pytest.raises(InputError, match="2 tokens"):
        chunks(2, 3)
    with pytest.raises(InputError, match="1 tokens"):
        windows(1, 8, 4)


def test_a_tokenizer_without_bos_is_refused(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = None
    with pytest.raises(InputError, match="no BOS"):
        text_tokens(["the cat"], bare, bos=True)


def test_windows_predict_every_token_once():
    assert windows(10, 4, 2) == [Span(0, 1, 4), Span(2, 4, 6), Span(4, 6, 8), Span(6, 8, 10)]
    assert windows(9, 4, 3) == [Span(0, 1, 4), Span(3, 4, 7), Span(6, 7, 9)]
    assert windows(3, 4, 2) == [Span(0, 1, 3)]
    assert windows(9, 4, 4) == [Span(0, 1, 4), Span(4, 5, 8)]
    for tokens, length, stride in ((57, 8, 3), (64, 8, 7), (65, 8, 1)):
        found = windows(tokens, length, stride)
        predicted = [token for span in found for token in range(span.first, span.end)]
        assert predicted == list(range(1, tokens))
        assert all(span.end - span.begin <= length for span in found)


@pytest.mark.parametrize(("window", "stride", "bos"), [(16, 8, False), (17, 5, False), (16, 16, True), (64, 1, False)])
def test_sliding_windows_equal_the_naive_double(subject, tokenizer, evaluation_of, path, window, stride, bos):
    options = {"chunk_length": window, "stride": stride, "bos": bos, "batch_size": 7, "max_documents": 12}
    metrics, predictions, _ = evaluation_of(subject, **TEXT, path=path, **options)
    ids = [tokenizer.bos_token_id] * bos + joined_ids(path, tokenizer, 12)
    expected = naive_sliding_perplexity(subject.model, ids, window, stride)
    assert metrics["metrics"]["perplexity"]["value"] == pytest.approx(expected, rel=1e-6)
    assert sum(line["tokens"] for line in predictions) == metrics["protocol"]["predicted_tokens"]
    assert metrics["protocol"]["stride"] == stride
    assert metrics["protocol"]["special_tokens"] is bos


def test_a_stride_beyond_the_models_context_is_refused(subject, evaluation_of, path):
    with pytest.raises(InputError, match="stride: 65 would leave out tokens between windows of 64"):
        evaluation_of(subject, **TEXT, path=path, stride=65)


def test_a_stride_beyond_the_window_is_refused():
    with pytest.raises(ValueError, match=r"stride \(9\) must be at most chunk_length \(8\)"):
        EvaluateRecipe(name="w", evaluation=TEXT | {"path": "x", "chunk_length": 8, "stride": 9})


def test_equal_inputs_give_equal_bytes(subject, evaluation_of, path):
    folders = [evaluation_of(subject, name, **TEXT, path=path, chunk_length=16)[2] for name in ("a", "b")]
    for name in ("predictions.jsonl", "metrics.json", "digest.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_an_interrupted_run_goes_on_and_ends_the_same(subject, evaluation_of, path, tmp_path, monkeypatch):
    options = TEXT | {"path": path, "chunk_length": 16, "batch_size": 2}
    _, _, whole = evaluation_of(subject, "whole", **options)
    calls = []
    forward = subject.model.forward

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise DeadlineReached("stop")
        return forward(*args, **kwargs)

    monkeypatch.setattr(subject.model, "forward", failing)
    with pytest.raises(DeadlineReached):
        evaluation_of(subject, "cut", **options)
    assert not (tmp_path / "cut" / "predictions.jsonl").exists()
    _, predictions, cut = evaluation_of(subject, "cut", **options)
    assert len(calls) == 1 + -(-len(predictions) // 2)
    for name in ("predictions.jsonl", "metrics.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


def test_a_broken_model_has_no_perplexity_but_a_reason(subject, evaluation_of, path, monkeypatch):
    forward = subject.model.forward

    def broken(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * float("nan")
        return output

    monkeypatch.setattr(subject.model, "forward", broken)
    metrics, predictions, _ = evaluation_of(subject, **TEXT, path=path, chunk_length=16)
    assert metrics["metrics"]["perplexity"]["value"] is None
    assert "not finite" in metrics["metrics"]["perplexity"]["reason"]
    assert predictions[0]["nll"] is None


def test_wikitext_lines_are_those_of_the_hub(test_data):
    path = test_data / "datasets" / "wikitext2" / "wiki.test.raw.gz"
    recipe = EvaluateRecipe(name="w", evaluation={"kind": "perplexity", "dataset": "wikitext2", "path": path})
    texts = document_texts(recipe.evaluation)
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        expected = [line if line.strip() else "" for line in handle]
    assert len(texts) == 4358
    assert texts == expected
    assert texts[1] == " = Robert Boulter = \n"


def test_tinystories_656k_has_its_known_perplexity(test_data, tmp_path):
    """First 500 validation stories, 200 chunks of 256, fp32: 29.81 (figures of the test data)."""
    stories = test_data / "datasets" / "tinystories" / "valid_sample.jsonl.gz"
    evaluation = TEXT | {"path": stories, "chunk_length": 256, "max_chunks": 200, "max_documents": 500}
    recipe = EvaluateRecipe(name="stories", evaluation=evaluation, dtype="float32")
    output = tmp_path / "out"
    evaluate_stage.run(recipe, model=test_data / "models" / "TinyStories-656K", output=output)
    metrics = json.loads((output / "metrics.json").read_text())
    metric = metrics["metrics"]["perplexity"]
    assert metric["value"] == pytest.approx(29.81, abs=0.005)
    assert metric["n"] == 200
    assert 0 < metric["standard_error"] < 1
    provenance = json.loads((output / "provenance.json").read_text())
    assert "path" not in provenance["recipe"]["evaluation"]
