"""Losses: the golden values, naive doubles, gradients by finite differences, masks and precision."""

import math
from types import SimpleNamespace

import pytest
import torch
from reference import losses as naive

from bitdistiller.config.base import OWN_LOSSES
from bitdistiller.distillation.losses import LOSSES, StepCounts, get_loss, resolve
from bitdistiller.distillation.losses.base import Rows
from bitdistiller.errors import InputError

B, T, V = 2, 3, 5
LABELS = torch.tensor([[1, 2, 3], [4, 0, -100]])
BETA = 0.37


def grid(function):
    return torch.tensor([[[function(b, t, v) for v in range(V)] for t in range(T)] for b in range(B)]).double()


STUDENT = grid(lambda b, t, v: math.sin(1 + b + 2 * t + 3 * v))
TEACHER = grid(lambda b, t, v: math.cos(2 + 3 * b + t + 2 * v))


def random_case(seed, batch=3, length=6, vocabulary=7):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(batch, length, vocabulary, generator=generator).double() * 2 for _ in range(2))
    labels = torch.randint(vocabulary, (batch, length), generator=generator)
    labels[torch.rand(batch, length, generator=generator) < 0.3] = -100
    labels[0, :2] = -100  # ignored in front
    return student, teacher, labels


@pytest.mark.parametrize(("gamma", "value"), [(0.0, 0.9615717), (0.37, 0.9675643), (1.0, 0.9777681)])
def test_golden_cakld(gamma, value):
    loss = get_loss("cakld")(STUDENT, TEACHER, LABELS, gamma=gamma, reduction="sequence_sum")
    assert loss.item() == pytest.approx(value, abs=1e-6)
    single = get_loss("cakld")(STUDENT.float(), TEACHER.float(), LABELS, gamma=gamma)
    assert single.item() == pytest.approx(value, abs=1e-6)


def test_golden_jsd():
    assert get_loss("jsd")(STUDENT, TEACHER, LABELS, gamma=0.5).item() == pytest.approx(0.2225989, abs=1e-6)


def test_golden_ends_of_cakld_are_the_two_divergences():
    assert get_loss("forward")(STUDENT, TEACHER, LABELS).item() == pytest.approx(0.9615717, abs=1e-6)
    assert get_loss("reverse")(STUDENT, TEACHER, LABELS).item() == pytest.approx(0.9777681, abs=1e-6)


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_naive_double(name, reduction):
    for case in [(STUDENT, TEACHER, LABELS), *map(random_case, range(3))]:
        expected = getattr(naive, name)(*(part.tolist() for part in case), BETA, reduction)
        found = get_loss(name)(*case, gamma=BETA, reduction=reduction)
        assert found.shape == ()
        assert found.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_by_finite_differences(name, reduction):
    student, teacher, labels = random_case(5, batch=2, length=4, vocabulary=4)

    def loss(logits):
        return get_loss(name)(logits, teacher, labels, gamma=BETA, reduction=reduction)

    assert torch.autograd.gradcheck(loss, student.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_positions_have_no_part(name):
    student, teacher, labels = random_case(1)
    first = get_loss(name)(student, teacher, labels, gamma=BETA)
    shifted = name in ("ce", "tlsd")
    counted = labels != -100
    if shifted:
        counted = torch.cat([counted[:, 1:], torch.zeros(len(labels), 1, dtype=torch.bool)], dim=1)
    changed = student.masked_fill(~counted.unsqueeze(-1), 50.0).clone()
    changed[..., 0] = torch.where(counted, changed[..., 0], -50.0)
    assert get_loss(name)(changed, teacher, labels, gamma=BETA).item() == pytest.approx(first.item(), rel=1e-12)
    student.requires_grad_()
    get_loss(name)(student, teacher, labels, gamma=BETA).backward()
    assert torch.equal((student.grad != 0).any(-1), counted)


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_but_ignored_labels_gives_zero_with_a_zero_gradient(name, reduction):
    student, teacher, labels = random_case(2)
    student.requires_grad_()
    loss = get_loss(name)(student, teacher, torch.full_like(labels, -100), gamma=BETA, reduction=reduction)
    loss.backward()
    assert loss.item() == 0.0
    assert not student.grad.any()


@pytest.mark.parametrize("name", ["cakld", "forward", "reverse", "jsd"])
def test_equal_models_have_no_loss(name):
    student, _, labels = random_case(3)
    assert get_loss(name)(student, student.clone(), labels, gamma=BETA).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_computed_in_float32(name):
    student, teacher, labels = random_case(4, vocabulary=300)
    half = [part.to(torch.bfloat16) for part in (student, teacher)]
    found = get_loss(name)(*half, labels, gamma=BETA)
    assert found.dtype == torch.float32
    exact = get_loss(name)(*(part.double() for part in half), labels, gamma=BETA)
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_stay_finite(name):
    student, teacher, labels = random_case(6)
    student, teacher = (student * 1e4).float().requires_grad_(), (teacher * 1e4).float()
    loss = get_loss(name)(student, teacher, labels, gamma=BETA)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def one_row(labels):
    """All sequences of a batch in one row, as a packed micro-batch has them."""
    rows = Rows(labels)
    return SimpleNamespace(**{key: getattr(rows, key).reshape(1, -1) for key in ("labels", "targets", "sequence")})


def part_of_a_step(loss, name, student, teacher, labels, counts, reduction, layout=Rows):
    """What one micro-batch adds to the loss of a step with these counts."""
    batch = layout(labels)
    keep = loss.counted(batch)
    rows = [torch.log_softmax(x, -1).reshape(*keep.shape, -1) for x in (student, teacher)]
    chosen = rows[1].gather(-1, batch.targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    weights = loss.weights(batch, counts, reduction, chosen, torch.float64)
    against = rows[1][keep] if name != "ce" else batch.targets[keep]
    assert torch.equal(weights != 0, keep)
    return (loss.values(rows[0][keep], against, BETA) * weights[keep]).sum().item()


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_a_step_add_up_to_the_whole_however_they_are_laid_out(name, reduction):
    student, teacher, labels = random_case(7, batch=5)
    loss, counts = get_loss(name), Rows(labels).counts
    whole = loss(student, teacher, labels, gamma=BETA, reduction=reduction).item()
    for layout in (Rows, one_row):
        joined = sum(
            part_of_a_step(loss, name, student[part], teacher[part], labels[part], counts, reduction, layout)
            for part in (slice(0, 2), slice(2, 5))
        )
        assert joined == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_are_those_of_the_values(name):
    student, teacher, labels = random_case(8)
    student, teacher = (torch.log_softmax(x, -1).flatten(0, 1) for x in (student, teacher))
    against = teacher if get_loss(name).needs_teacher else labels.flatten().clamp(min=0)
    before = student.clone(), against.clone()
    free = student.clone().requires_grad_()
    expected = get_loss(name).values(free, against, BETA)
    (slopes,) = torch.autograd.grad(expected.sum(), free)
    values, found = get_loss(name).derivatives(student, against, BETA)
    assert torch.equal(student, before[0])
    assert torch.equal(against, before[1])
    torch.testing.assert_close(values, expected.detach())
    torch.testing.assert_close(found, slopes)


def test_an_empty_micro_batch_has_no_weights():
    nothing = torch.full((1, 4), -100)
    batch = SimpleNamespace(labels=nothing, targets=nothing, sequence=torch.full((1, 4), -1))
    for loss in LOSSES.values():
        weights = loss.weights(batch, StepCounts(3, 20, 17), "sequence_sum", torch.zeros(1, 4))
        assert weights.dtype == torch.float32
        assert not weights.any()


def test_a_name_and_a_sum_of_it_alone_are_the_same():
    assert resolve("cakld") == resolve({"cakld": 1.0}) == [(get_loss("cakld"), 1.0)]
    assert resolve({"jsd": 0.5, "ce": 0.1}) == [(get_loss("jsd"), 0.5), (get_loss("ce"), 0.1)]
    assert tuple(LOSSES) == OWN_LOSSES


def test_refusals():
    with pytest.raises(InputError, match="unknown loss 'mse'; accepted: cakld, forward, reverse, jsd, tlsd, ce"):
        get_loss("mse")
    with pytest.raises(ValueError, match="unknown reduction 'mean'"):
        get_loss("cakld")(STUDENT, TEACHER, LABELS, reduction="mean")
    with pytest.raises(ValueError, match="needs the teacher's log-probability"):
        get_loss("tlsd").weights(Rows(LABELS), Rows(LABELS).counts, "token_mean")
    for beta in (0.0, 1.0):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            get_loss("jsd")(STUDENT, TEACHER, LABELS, gamma=beta)
