"""The chunked loss equals loops over positions and tokens; its gradients, its memory, and what it skips."""

from dataclasses import replace

import pytest
import torch
from helpers.allocations import Allocations
from reference import losses as naive

from bitdistiller.distillation.chunked import Term, chunked_loss
from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.losses import LOSSES
from bitdistiller.distillation.signals import HiddenSignal, TopKSignal

N, H, H_TEACHER, V = 11, 5, 4, 9
GAMMA = 0.37
HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "softcap": {"softcap": 2.5},
    "scale": {"scale": 0.6},
    "padded": {"vocabulary": 7},
    "all": {"bias": True, "softcap": 2.5, "scale": 0.6, "vocabulary": 8},
}


def make_head(seed, width, dtype=torch.float64, bias=False, softcap=None, scale=1.0, vocabulary=V):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(V, width, generator=generator, dtype=torch.float64).to(dtype)
    offsets = torch.randn(V, generator=generator, dtype=torch.float64).to(dtype) if bias else None
    return Head(weight, offsets, softcap, scale, vocabulary)


def make_case(seed=0, dtype=torch.float64, teacher=None, **head):
    """Hidden states, the student's head, the teacher's hidden states as a signal, targets, weights by loss."""
    generator = torch.Generator().manual_seed(seed)
    hidden, far = (torch.randn(N, w, generator=generator, dtype=torch.float64).to(dtype) for w in (H, H_TEACHER))
    student = make_head(seed + 1, H, dtype, **head)
    signal = HiddenSignal(far, make_head(seed + 2, H_TEACHER, dtype, **(teacher or head)))
    targets = torch.randint(7, (N,), generator=generator)
    weights = {name: torch.rand(N, generator=generator, dtype=torch.float64) for name in LOSSES}
    for row in weights.values():
        row[torch.rand(N, generator=generator) < 0.3] = 0.0
        row[4] = 0.0  # counts nowhere
    targets[weights["ce"] == 0.0] = -100
    return hidden, student, signal, targets, weights


def top_k(signal, k):
    """The k most probable tokens of a full signal."""
    rows = signal.rows(torch.arange(N))
    found, ids = rows.topk(k)
    return TopKSignal(ids, found, rows.scatter(-1, ids, -torch.inf).logsumexp(-1))


def make_terms(coefficients, weights):
    return [Term(LOSSES[name], coefficient, weights[name], GAMMA) for name, coefficient in coefficients.items()]


def distributions(hidden, head, vocabulary):
    fields = head.weight.tolist(), None if head.bias is None else head.bias.tolist(), head.scale, head.softcap
    return [naive.softmax(naive.head_logits(row, *fields, vocabulary)) for row in hidden.tolist()]


def expected_loss(case, coefficients, ids=None):
    hidden, head, signal, targets, weights = case
    vocabulary = min(head.vocabulary, signal.head.vocabulary)
    students = distributions(hidden, head, vocabulary)
    teachers = distributions(signal.hidden, signal.head, vocabulary)
    total = 0.0
    for name, coefficient in coefficients.items():
        for n, weight in enumerate(weights[name].tolist()):
            s, t = students[n], teachers[n]
            if ids is not None and name != "ce":
                s, t = naive.coarse(s, ids[n]), naive.coarse(t, ids[n])
            if weight:
                total += coefficient * weight * naive.at_position(name, s, t, targets[n].item(), GAMMA)
    return total


SUMS = [{name: 1.0} for name in LOSSES] + [{"cakld": 1.0, "ce": 0.1}, dict.fromkeys(LOSSES, 0.3)]


@pytest.mark.parametrize("coefficients", SUMS, ids="+".join)
@pytest.mark.parametrize("head", HEADS)
def test_equals_the_naive_double(head, coefficients):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        case = make_case(3, dtype, **HEADS[head])
        found = chunked_loss(*case[:4], make_terms(coefficients, case[4]), chunk=4)
        assert found.dtype == dtype
        assert found.item() == pytest.approx(expected_loss(case, coefficients), rel=tolerance)


@pytest.mark.parametrize("coefficients", SUMS, ids="+".join)
def test_top_k_equals_the_naive_double_of_the_coarse_distributions(coefficients):
    case = make_case(4)
    for k in (1, 3, 8):
        signal = top_k(case[2], k)
        found = chunked_loss(case[0], case[1], signal, case[3], make_terms(coefficients, case[4]), chunk=4)
        assert found.item() == pytest.approx(expected_loss(case, coefficients, signal.ids.tolist()), rel=1e-12)


@pytest.mark.parametrize("name", ["cakld", "forward", "reverse", "jsd"])
def test_top_k_is_a_lower_bound_that_rises_with_k(name):
    hidden, head, signal, targets, weights = make_case(5)
    terms = make_terms({name: 1.0}, weights)
    values = [chunked_loss(hidden, head, top_k(signal, k), targets, terms).item() for k in (1, 2, 4, 8)]
    full = chunked_loss(hidden, head, signal, targets, terms).item()
    assert values == sorted(values)
    assert values[-1] == pytest.approx(full, rel=1e-12)  # one token is all the rest
    assert values[0] < full


@pytest.mark.parametrize("side", ["full", "top-k"])
@pytest.mark.parametrize("coefficients", SUMS, ids="+".join)
def test_gradients_by_finite_differences(coefficients, side):
    hidden, head, signal, targets, weights = make_case(6, bias=True, softcap=2.5, scale=0.6, vocabulary=8)
    chosen = signal if side == "full" else top_k(signal, 3)
    terms = make_terms(coefficients, weights)

    def loss(hidden, weight, bias):
        return 1.7 * chunked_loss(hidden, replace(head, weight=weight, bias=bias), chosen, targets, terms, chunk=4)

    leaves = [tensor.requires_grad_() for tensor in (hidden, head.weight, head.bias)]
    assert torch.autograd.gradcheck(loss, leaves)


def test_unequal_vocabularies_use_the_smaller_and_give_padding_no_gradient():
    for student, teacher in ((9, 7), (7, 9)):
        case = make_case(7, vocabulary=student, teacher={"vocabulary": teacher})
        case[1].weight.requires_grad_()
        loss = chunked_loss(*case[:4], make_terms({"cakld": 1.0, "ce": 0.5}, case[4]))
        assert loss.item() == pytest.approx(expected_loss(case, {"cakld": 1.0, "ce": 0.5}), rel=1e-12)
        loss.backward()
        assert not case[1].weight.grad[7:].any()
        assert case[1].weight.grad[:7].all()


def test_a_tied_head_adds_to_the_gradient_of_the_embedding():
    _, head, signal, targets, weights = make_case(8)
    embedding = head.weight.requires_grad_()
    ids = torch.arange(N) % V

    def gradient(weight, lookup):
        terms = make_terms({"cakld": 1.0}, weights)
        return torch.autograd.grad(
            chunked_loss(torch.tanh(lookup[ids]), replace(head, weight=weight), signal, targets, terms), embedding
        )[0]

    together = gradient(embedding, embedding)
    apart = gradient(embedding, embedding.detach()) + gradient(embedding.detach(), embedding)
    torch.testing.assert_close(together, apart)


def test_positions_without_weight_are_not_looked_at():
    hidden, head, signal, targets, weights = make_case(9)
    terms = make_terms(dict.fromkeys(LOSSES, 1.0), weights)
    first = chunked_loss(hidden, head, signal, targets, terms)
    unused = torch.stack(list(weights.values())).eq(0).all(0)
    assert unused[4]
    hidden[unused], signal.hidden[unused] = torch.nan, torch.nan
    hidden.requires_grad_()
    loss = chunked_loss(hidden, head, signal, targets, terms)
    loss.backward()
    assert loss.item() == pytest.approx(first.item(), rel=1e-12)
    assert torch.equal(hidden.grad.any(-1), ~unused)


def test_no_weight_at_all_gives_zero_with_a_zero_gradient():
    hidden, head, signal, targets, weights = make_case(10)
    terms = [Term(LOSSES["cakld"], 1.0, torch.zeros_like(weights["ce"]), GAMMA)]
    loss = chunked_loss(hidden.requires_grad_(), head, signal, targets, terms)
    loss.backward()
    assert loss.item() == 0.0
    assert not hidden.grad.any()


@pytest.mark.parametrize("head", ["plain", "all"])
def test_the_chunk_changes_nothing_but_rounding(head):
    case = make_case(11, **HEADS[head])
    case[0].requires_grad_()
    case[1].weight.requires_grad_()
    found = []
    for chunk in (1, 3, N, None):
        loss = chunked_loss(*case[:4], make_terms({"jsd": 1.0, "ce": 0.2}, case[4]), chunk)
        found.append((loss, *torch.autograd.grad(loss, (case[0], case[1].weight))))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_evaluation_has_the_same_value_and_no_gradient():
    case = make_case(12, softcap=2.5)
    case[0].requires_grad_()
    terms = make_terms(dict.fromkeys(LOSSES, 0.3), case[4])
    with torch.no_grad():
        evaluated = chunked_loss(*case[:4], terms)
    trained = chunked_loss(*case[:4], terms)
    assert not evaluated.requires_grad
    assert trained.requires_grad
    assert evaluated.item() == pytest.approx(trained.item(), rel=1e-12)


def test_the_losses_without_a_teacher_need_no_signal():
    hidden, head, signal, targets, weights = make_case(13)
    terms = make_terms({"ce": 1.0}, weights)
    with_teacher = chunked_loss(hidden, head, signal, targets, terms)
    assert chunked_loss(hidden, head, None, targets, terms).item() == with_teacher.item()


@pytest.mark.parametrize("frozen", ["head", "hidden"])
def test_what_needs_no_gradient_gets_none(frozen):
    case = make_case(14)
    trained, other = (case[0], case[1].weight) if frozen == "head" else (case[1].weight, case[0])
    trained.requires_grad_()
    chunked_loss(*case[:4], make_terms({"cakld": 1.0}, case[4])).backward()
    assert trained.grad.any()
    assert other.grad is None


def test_autocast_makes_the_products_in_bfloat16_and_the_rest_in_float32():
    hidden, head, signal, targets, weights = make_case(15, torch.float32)
    leaves = [hidden.requires_grad_(), head.weight.requires_grad_()]
    terms = make_terms({"cakld": 1.0}, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = chunked_loss(hidden, head, signal, targets, terms, chunk=4)
    found = loss, *torch.autograd.grad(loss, leaves)
    exact = chunked_loss(hidden, head, signal, targets, terms)
    expected = exact, *torch.autograd.grad(exact, leaves)
    assert [each.dtype for each in found] == [torch.float32] * 3
    assert found[0].item() != expected[0].item()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_bfloat16_weights_get_bfloat16_gradients_summed_in_float32():
    hidden, head, signal, targets, weights = make_case(16, torch.bfloat16)
    leaves = [hidden.requires_grad_(), head.weight.requires_grad_()]
    terms = make_terms({"forward": 1.0}, weights)
    loss = chunked_loss(hidden, head, signal, targets, terms, chunk=2)
    gradients = torch.autograd.grad(loss, leaves)
    assert loss.dtype == torch.float32
    assert [each.dtype for each in gradients] == [torch.bfloat16] * 2
    whole = torch.autograd.grad(chunked_loss(hidden, head, signal, targets, terms), leaves)
    torch.testing.assert_close(gradients, whole, rtol=0.02, atol=0.02)


def memory_of(n, chunk=8, hidden=16, vocabulary=512):
    leaves = [torch.randn(n, hidden, requires_grad=True), torch.randn(vocabulary, hidden, requires_grad=True)]
    far, teacher = torch.randn(n, hidden), Head(torch.randn(vocabulary, hidden), None, None, 1.0, vocabulary)
    terms = [Term(LOSSES[name], 1.0, torch.full((n,), 1 / n), GAMMA) for name in ("cakld", "ce")]
    targets = torch.randint(vocabulary, (n,))
    with Allocations(*leaves, far, teacher.weight, targets, *(term.weights for term in terms)) as made:
        head = Head(leaves[1], None, None, 1.0, vocabulary)
        chunked_loss(leaves[0], head, HiddenSignal(far, teacher), targets, terms, chunk).backward()
    return made


def test_memory_does_not_grow_with_positions_beyond_the_gradient_of_the_hidden_states():
    few, many = memory_of(64), memory_of(384)
    assert few.largest == 512 * 16
    assert many.largest == 512 * 16  # the head's gradient, never 384 * 512
    per_position = (many.peak - few.peak) / (384 - 64)
    assert per_position <= 2 * 16 * 4 + 8 * 8  # bytes: a gradient and its gathered part, a few indices and flags
    assert few.peak < 512 * 16 * 4 * 2 + 12 * 8 * 512 * 4
