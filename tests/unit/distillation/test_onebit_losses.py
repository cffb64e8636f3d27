"""The losses of OneBit and LLM-QAT against loops, with the coefficients of the released scripts."""

import pytest
import torch
from reference.onebit import batch_kl, hidden_loss

from bitdistiller.distillation.losses import BatchDivergence, OneBitLoss, get_loss
from bitdistiller.errors import InputError

LABELS = torch.full((2, 3), -100)


@pytest.fixture
def states():
    """Logits and hidden states of student and teacher: B = 2, T = 3, V = 5, 4 entries of width 6."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return random(2, 3, 5), random(2, 3, 5), [random(2, 3, 6) for _ in range(4)], [random(2, 3, 6) for _ in range(4)]


def test_llm_qat_is_the_divergence_over_the_batch(states):
    student, teacher, *_ = states
    found = get_loss("llm-qat")(student, teacher, LABELS)
    assert float(found) == pytest.approx(batch_kl(student, teacher), rel=1e-9)
    assert float(BatchDivergence(0.5)(student, teacher)) == pytest.approx(batch_kl(student, teacher) / 2)


def test_onebit_has_the_coefficients_of_the_scripts(states):
    student, teacher, mine, theirs = states
    found = get_loss("onebit")(student, teacher, LABELS, student_hidden_states=mine, teacher_hidden_states=theirs)
    expected = 0.01 * batch_kl(student, teacher) + hidden_loss(mine, theirs)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_last_hidden_state_and_the_labels_do_not_count(states):
    student, teacher, mine, theirs = states
    loss = get_loss("onebit")
    given = {"student_hidden_states": mine, "teacher_hidden_states": theirs}
    first = loss(student, teacher, LABELS, **given)
    given["student_hidden_states"] = [*mine[:-1], mine[-1] * 7 + 1]
    assert torch.equal(loss(student, teacher, LABELS * 0 + 1, **given), first)
    assert torch.equal(loss(student, teacher, LABELS, **given, gamma=0.3, reduction="token_mean"), first)


def test_gradients_reach_the_student_alone(states):
    student, teacher, mine, theirs = states
    tensors = [student, teacher, *mine, *theirs]
    for tensor in tensors:
        tensor.requires_grad_()
    get_loss("onebit")(
        student, teacher.detach(), LABELS, student_hidden_states=mine, teacher_hidden_states=theirs
    ).backward()
    assert student.grad is not None
    assert all(state.grad is not None for state in mine[:-1])
    assert mine[-1].grad is None
    assert all(state.grad is None for state in theirs)


def test_labels_and_attentions_count_where_asked_for(states):
    student, teacher, *_ = states
    labels = torch.tensor([[1, 2, 3], [4, 0, -100]])
    found = OneBitLoss(alpha=0.8, scale=1.0, beta=0.0)(student, teacher, labels)
    log_q = student.log_softmax(-1)
    chosen = [(0, 0, 2), (0, 1, 3), (1, 0, 0)]
    expected = -sum(float(log_q[place]) for place in chosen) / 3
    assert float(found) == pytest.approx(0.8 * batch_kl(student, teacher) + 0.2 * expected, rel=1e-6)
    attention = OneBitLoss(beta=0.0, attention=2.0)
    a, b = (x.softmax(-1) for x in (torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 3)))
    found = attention(student, teacher, student_attentions=[a], teacher_attentions=[b])
    distance = (a - b).square().sum(-1).mean()
    assert float(found) == pytest.approx(0.01 * batch_kl(student, teacher) + 2 * float(distance), rel=1e-5)


def test_what_is_missing_is_said(states):
    student, teacher, mine, theirs = states
    with pytest.raises(ValueError, match="give student_hidden_states and teacher_hidden_states"):
        get_loss("onebit")(student, teacher, LABELS)
    with pytest.raises(ValueError, match=r"as many of both \(4, 3\)"):
        get_loss("onebit")(student, teacher, LABELS, student_hidden_states=mine, teacher_hidden_states=theirs[:3])
    with pytest.raises(ValueError, match="needs labels"):
        OneBitLoss(alpha=0.5, beta=0)(student, teacher)
    with pytest.raises(InputError, match=r"accepted: cakld, .*, onebit, llm-qat"):
        get_loss("nothing")
