"""Values and codes: golden figures, bit equality with the naive formulas, and what every format must keep."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference.formats import codes_of_group
from reference.formats import fake_quantize as naive

from bitdistiller.errors import InputError
from bitdistiller.formats import format_names, get_format
from bitdistiller.formats.normal_float import NF3_NEGATIVE, NF3_POSITIVE, side_of

GROUP = 8
SPECIAL_GROUPS = {
    "zero": [0.0] * GROUP,
    "constant": [0.3] * GROUP,
    "negative constant": [-0.3] * GROUP,
    "positive": [0.1 * k for k in range(1, GROUP + 1)],
    "negative": [-0.1 * k for k in range(1, GROUP + 1)],
    "maximum zero": [-0.1 * k for k in range(GROUP)],
    "minimum zero": [0.1 * k for k in range(GROUP)],
    "tiny": [1e-9 * k for k in range(GROUP)],
    "one outlier": [1e4] + [1e-3] * (GROUP - 1),
}


def groups_of_weights(width=32):
    value = st.floats(-1e3, 1e3, width=width)
    any_sign = st.lists(value, min_size=GROUP, max_size=GROUP)
    return any_sign | any_sign.map(lambda w: [abs(x) for x in w]) | any_sign.map(lambda w: [-abs(x) for x in w])


def as_weight(*groups, dtype=torch.float32):
    return torch.tensor(groups, dtype=dtype)


def test_golden_values(golden_weight, golden):
    for name, rows in golden["values"].items():
        values = get_format(name).fake_quantize(golden_weight, GROUP)
        assert values.dtype == torch.float64
        torch.testing.assert_close(values[0], torch.tensor(rows, dtype=torch.float64), atol=5e-8, rtol=0)


@pytest.mark.parametrize("scale_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", format_names())
def test_equals_the_naive_formula_bit_for_bit(name, dtype, scale_dtype):
    weight = (torch.randn(37, 256, generator=torch.Generator().manual_seed(1)) * 0.05).to(dtype)
    rounding = torch.bfloat16 if scale_dtype == "bfloat16" else None
    expected = naive(name, weight.float(), 64, scale_dtype=rounding)
    values = get_format(name, scale_dtype).fake_quantize(weight, 64)
    assert values.dtype == dtype
    assert torch.equal(values, expected.to(dtype))


@pytest.mark.parametrize("name", ["int2", "int3", "int4"])
@given(group=groups_of_weights(width=64))
@settings(max_examples=50, deadline=None)
def test_integer_codes_equal_scalar_arithmetic(name, group):
    number_format = get_format(name)
    codes, scale, zero_point = number_format.quantize(as_weight(group, dtype=torch.float64), GROUP)
    expected = codes_of_group(group, number_format.bits)
    assert (codes[0].tolist(), scale.item(), zero_point.item()) == expected


@pytest.mark.parametrize("name", format_names())
@given(group=groups_of_weights())
@settings(max_examples=40, deadline=None)
def test_every_group_decodes_to_what_its_codes_say(name, group):
    number_format, weight = get_format(name), as_weight(group)
    codes, scale, zero_point = number_format.quantize(weight, GROUP)
    values = number_format.fake_quantize(weight, GROUP)
    assert codes.dtype == torch.uint8
    assert int(codes.max()) < 2**number_format.bits
    assert torch.equal(values, number_format.dequantize(codes, scale, zero_point, GROUP))
    assert torch.isfinite(values).all()
    order = weight[0].argsort()
    assert (codes[0][order].int().diff() >= 0).all()


@pytest.mark.parametrize("name", format_names())
@given(group=groups_of_weights())
@settings(max_examples=40, deadline=None)
def test_error_is_bounded_by_the_widest_step(name, group):
    number_format, weight = get_format(name), as_weight(group, dtype=torch.float64)
    error = (number_format.fake_quantize(weight, GROUP) - weight).abs().max().item()
    span = max(*group, 0.0) - min(*group, 0.0)
    if name.startswith("int"):
        bound = max(span, 1e-5) / (2**number_format.bits - 1)
    elif name.startswith("sym"):
        largest = max(map(abs, group)) + 1e-6
        bound = largest / 2 / number_format.levels + 1e-6 * (1 + largest**2 / number_format.levels)
    else:
        bound = max(map(abs, group)) * (0.5 if name == "nf2" else 0.24)
    assert error <= bound * (1 + 1e-9)


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("scale_dtype", ["float32", "bfloat16"])
@given(group=groups_of_weights())
@settings(max_examples=40, deadline=None)
def test_quantising_twice_changes_nothing(name, scale_dtype, group):
    number_format = get_format(name, scale_dtype)
    span = max(*group, 0.0) - min(*group, 0.0)
    assume(span > 1e-4)
    if name.startswith("int"):
        zero_point = min(*group, 0.0) / (span / (2**number_format.bits - 1))
        assume(abs(zero_point % 1 - 0.5) > 0.05)
    once = number_format.fake_quantize(as_weight(group), GROUP)
    largest = max(map(abs, group))
    # The symmetric formula's two 1e-6 move even the largest weight a little, each time.
    drift = 1e-6 * (1 / largest + largest / number_format.levels) if name.startswith("sym") else 0
    torch.testing.assert_close(number_format.fake_quantize(once, GROUP), once, rtol=1e-6 + 2 * drift, atol=0)
    assert torch.equal(number_format.quantize(once, GROUP)[0], number_format.quantize(as_weight(group), GROUP)[0])


@pytest.mark.parametrize("name", format_names())
def test_groups_are_independent(name):
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(2))
    number_format, order = get_format(name), torch.randperm(4, generator=torch.Generator().manual_seed(3))
    values = number_format.fake_quantize(weight, 16).view(6, 4, 16)
    shuffled = weight.view(6, 4, 16)[:, order].reshape(6, 64)
    assert torch.equal(number_format.fake_quantize(shuffled, 16).view(6, 4, 16), values[:, order])


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("case", SPECIAL_GROUPS)
def test_groups_of_one_sign_and_constant_groups(name, case):
    weight = as_weight(SPECIAL_GROUPS[case], dtype=torch.float64)
    values = get_format(name).fake_quantize(weight, GROUP)
    assert torch.isfinite(values).all()
    assert (values * weight >= 0).all()
    if case != "tiny" or name.startswith("nf"):
        largest = weight.abs().max().item()
        allowed = 1e-6 * (1 + largest**2) if name.startswith("sym") else 0
        assert values.abs().max() == pytest.approx(largest, rel=1e-9, abs=allowed)


def test_the_reference_range_decodes_a_constant_group_to_nonsense():
    weight = torch.full((1, GROUP), 0.3)
    values = get_format("int2", reference_range=True).fake_quantize(weight, GROUP)
    torch.testing.assert_close(values, torch.full_like(weight, 1e-5))
    torch.testing.assert_close(get_format("int2").fake_quantize(weight, GROUP), weight)


def test_the_reference_range_is_equal_where_groups_straddle_zero():
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(4))
    assert torch.equal(
        get_format("int3").fake_quantize(weight, 32), get_format("int3", reference_range=True).fake_quantize(weight, 32)
    )


def test_the_symmetric_golden_values():
    row = torch.tensor([[0.1, -0.25, 0.5, -1.0, 2.5, -2.0, 0, 0.7]])
    golden = {
        "sym4": [0, -0.3571429, 0.3571429, -1.0714285, 2.5, -2.1428571, 0, 0.7142857],
        "sym8": [0.0984252, -0.2559056, 0.4921262, -1.0039374, 2.5000010, -2.0078747, 0, 0.7086617],
    }
    for name, expected in golden.items():
        torch.testing.assert_close(get_format(name).fake_quantize(row, 8), torch.tensor([expected]), atol=1e-6, rtol=0)
    weight = row.clone().requires_grad_()
    get_format("sym4").fake_quantize(weight, 8).sum().backward()
    assert weight.grad.tolist() == [[1, 1, 1, 1, 0, 0, 1, 1]]


def test_ties_round_to_even():
    codes, scale, zero_point = get_format("int2").quantize(torch.tensor([[-1.0, 0.5, 1.5, 2.0]]), 4)
    assert (codes.tolist(), scale.item(), zero_point.item()) == ([[0, 1, 3, 3]], 1.0, 1)
    codes, scale, zero_point = get_format("int2").quantize(torch.tensor([[-0.5, 0.5, 1.5, 2.5]]), 4)
    assert (codes.tolist(), scale.item(), zero_point.item()) == ([[0, 0, 2, 2]], 1.0, 0)


def test_a_quotient_on_a_normal_float_boundary_goes_up():
    weight = torch.tensor([[1.0, *NF3_POSITIVE.boundaries, -1.0, *NF3_NEGATIVE.boundaries]], dtype=torch.float64)
    codes, scale, _ = get_format("nf3").quantize(weight, None)
    assert scale.tolist() == [[[1.0, 1.0]]]
    assert codes.tolist() == [[7, 4, 5, 6, 7, 0, 3, 2, 1]]


def test_the_rule_for_other_widths_gives_the_nf3_tables():
    for side, table in ((side_of(3, -1), NF3_NEGATIVE), (side_of(3, 1), NF3_POSITIVE)):
        assert side.levels == pytest.approx(table.levels, abs=1e-5)
        assert side.boundaries == pytest.approx(table.boundaries, abs=1e-5)


def test_nf4_has_the_well_known_levels():
    negative, positive = side_of(4, -1).levels, side_of(4, 1).levels
    assert (len(negative), len(positive)) == (7, 8)
    assert positive[0] == pytest.approx(0.0795803, abs=1e-5)
    assert negative[0] == pytest.approx(-0.0910500, abs=1e-5)


@pytest.mark.parametrize("name", format_names())
def test_order_is_kept(name):
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(7)).sort(dim=1).values
    for scale_dtype in ("float32", "bfloat16"):
        assert (get_format(name, scale_dtype).fake_quantize(weight, 64).diff(dim=1) >= 0).all()


@pytest.mark.parametrize("name", format_names())
def test_bfloat16_scales_are_exact_in_bfloat16(name):
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(5))
    scale = get_format(name, "bfloat16").quantize(weight, 32)[1]
    assert scale.dtype == torch.float32
    assert torch.equal(scale, scale.bfloat16().float())


@pytest.mark.parametrize("group_size", [None, -1])
def test_whole_rows_can_be_groups(group_size):
    weight = torch.randn(4, 24)
    assert get_format("int4").quantize(weight, group_size)[1].shape == (4, 1)
    assert torch.equal(
        get_format("int4").fake_quantize(weight, group_size), get_format("int4").fake_quantize(weight, 24)
    )


def test_many_chunks_equal_one(monkeypatch):
    weight = torch.randn(50, 64, dtype=torch.bfloat16)
    whole = [get_format(name).fake_quantize(weight, 16) for name in format_names()]
    monkeypatch.setattr("bitdistiller.kernels.eager.CPU_CHUNK", 7 * 64)
    for name, expected in zip(format_names(), whole, strict=True):
        assert torch.equal(get_format(name).fake_quantize(weight, 16), expected)
        assert torch.equal(get_format(name).dequantize(*get_format(name).quantize(weight, 16), 16).bfloat16(), expected)


@pytest.mark.parametrize(
    ("name", "scale_dtype", "expected"),
    [
        ("int2", "bfloat16", 2.140625),
        ("int2", "float32", 2.265625),
        ("int3", "bfloat16", 3.1484375),
        ("nf3", "bfloat16", 3.25),
    ],
)
def test_bits_per_weight(name, scale_dtype, expected):
    assert get_format(name, scale_dtype).bits_per_weight(128) == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", format_names())
def test_weights_that_are_not_finite_are_refused_by_layer_and_row(name, bad):
    weight = torch.randn(5, 16)
    weight[3, 4] = bad
    for quantize in (get_format(name).fake_quantize, get_format(name).quantize):
        with pytest.raises(InputError, match=r"^model\.up: infinite or NaN weights in 1 of 5 rows, first in row 3$"):
            quantize(weight, 8, name="model.up")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opposite_infinities_are_refused(dtype):
    weight = torch.tensor([[float("inf"), -float("inf"), 0, 1]], dtype=dtype)
    for name in format_names():
        with pytest.raises(InputError):
            get_format(name).fake_quantize(weight, 4)


@pytest.mark.parametrize(
    ("weight", "group_size", "message"),
    [
        (torch.zeros(2, 10), 4, "q_proj: group_size 4 does not divide its 10 input features"),
        (torch.zeros(2, 10), 0, "group_size: 0; accepted"),
        (torch.zeros(2, 3, 4), 4, "q_proj: torch.float32 of shape"),
        (torch.zeros(2, 4, dtype=torch.int32), 4, "q_proj: torch.int32 of shape"),
    ],
)
def test_bad_shapes_are_refused(weight, group_size, message):
    with pytest.raises(InputError, match=message):
        get_format("int2").fake_quantize(weight, group_size, name="q_proj")


def test_unknown_names_are_refused_with_what_is_accepted():
    with pytest.raises(InputError, match="format: unknown 'int5'; accepted: int2, int3, int4, nf2, nf3, nf4"):
        get_format("int5")
    with pytest.raises(InputError, match="scale_dtype: 'float16'; accepted: float32, bfloat16"):
        get_format("int2", scale_dtype="float16")
    with pytest.raises(InputError, match="reference_range: nf3 has none"):
        get_format("nf3", reference_range=True)


def test_names_and_equality():
    assert [get_format(name).name for name in format_names()] == list(format_names())
    assert get_format("int2") == get_format("int2") != get_format("int2", "bfloat16")
