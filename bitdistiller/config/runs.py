"""Methods, and runs: the rows of a table."""

from __future__ import annotations

from typing import Self

from pydantic import PositiveInt, model_validator

from bitdistiller.config.base import INTEGERS, SIGNS, Dtype, FormatName, LayoutName, Name, Section, format_names
from bitdistiller.config.calibration import GROUPED, Calibration, Quantization
from bitdistiller.config.mixed import check_channel_integers, mixed_bits


class Method(Section):
    """What a method is made of: the stages between the full-precision model and the evaluation."""

    title: str
    quantised: bool = True
    clip: bool = False
    train: bool = False
    baseline: bool = False
    """A quantisation library chooses the weights, in an environment of its own (docs/method.md 7)."""
    formats: tuple[FormatName, ...] | None = None
    """The number formats it has; None: all of them."""
    own_format: str | None = None
    """The format of a method that has one of its own, which its runs do not name."""
    mixed: bool = False
    """Its formats are bits of weights, activations and KV cache: 4-8-4."""

    @property
    def grouped(self) -> bool:
        """Whether its formats quantise groups of weights."""
        return self.own_format is None and not self.mixed


METHODS: dict[str, Method] = {
    "16-bit": Method(title="16-bit", quantised=False),
    "rtn": Method(title="RTN"),
    "clip": Method(title="Clipped RTN", clip=True),
    "gptq": Method(title="GPTQ", baseline=True, formats=INTEGERS),
    "awq": Method(title="AWQ", baseline=True, formats=INTEGERS),
    "autoround": Method(title="AutoRound", baseline=True, formats=INTEGERS),
    "bitdistiller": Method(title="BitDistiller", clip=True, train=True),
    "distilled": Method(title="Distilled, unclipped", train=True),
    "onebit": Method(title="OneBit", train=True, own_format=SIGNS),
    "llm-qat": Method(title="LLM-QAT", train=True, mixed=True),
}


class BaselineRecipe(Section):
    """Everything the stage `baseline` needs."""

    quantization: Quantization
    calibration: Calibration
    method: str
    """A method of the workflow that is a library's: gptq, awq or autoround."""

    @model_validator(mode="after")
    def _library_method(self) -> Self:
        known = [name for name, method in METHODS.items() if method.baseline]
        if self.method not in known:
            raise ValueError(f"method {self.method!r} is no library's; accepted: {', '.join(known)}")
        check_method(self.method, self.quantization.format, self.quantization.pad)
        return self


def check_method(method: str, number_format: str | None, pad: bool) -> None:
    """Raises ValueError when a method does not have a number format, or cannot pad."""
    formats = METHODS[method].formats
    if pad and METHODS[method].baseline:
        raise ValueError(f"method {method} takes no pad: its libraries need a group size that divides")
    mixed = METHODS[method].mixed
    if number_format is not None and (mixed_bits(number_format) is not None) != mixed:
        accepted = "bits of weights, activations and cache such as 4-8-4" if mixed else ", ".join(format_names())
        raise ValueError(f"method {method} has no format {number_format}; accepted: {accepted}")
    if formats is not None and number_format not in formats:
        raise ValueError(f"method {method} has no format {number_format}; accepted: {', '.join(formats)}")


class Run(Section):
    """One row of a table: model + method + format + group size + mix + training preset + evaluations."""

    model: Name
    method: str
    format: FormatName | None = None
    group_size: PositiveInt = 128
    scale_dtype: Dtype = "bfloat16"
    pad: bool = False
    """Where the group size does not divide a layer's input features, fill its last group up with zeros."""
    calibration: Name | None = None
    mix: Name | None = None
    training: Name | None = None
    teacher: Name | None = None
    """Another full-precision model of the same vocabulary to distil from; the default is the run's own model."""
    nodes: PositiveInt = 1
    """Nodes of a SLURM cluster that its training runs on, each with what `resources.train` says; elsewhere one machine
    trains it alone. No number of the result depends on it but by rounding."""
    evaluations: list[Name] = []
    """Names of evaluations; empty means all of the experiment."""
    when_available: bool = False
    """Leave this run of a library's method out where its environment is not installed (`make env-baselines`)."""
    layouts: list[LayoutName] = []
    """Further layouts of the packed checkpoint, for other engines, with the same values (docs/formats.md)."""

    @property
    def quantization(self) -> Quantization:
        """Format, group size and scale precision of a quantised run."""
        assert self.number_format is not None
        groups = {key: getattr(self, key) for key in GROUPED} if METHODS[self.method].grouped else {}
        return Quantization(format=self.number_format, **groups)

    @property
    def number_format(self) -> str | None:
        """The number format, named by the run or its method's own; None for an unquantised run."""
        return METHODS[self.method].own_format or self.format

    @model_validator(mode="after")
    def _fits_method(self) -> Self:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; accepted: {', '.join(METHODS)}")
        method = METHODS[self.method]
        needs = {
            "format": method.quantised and method.own_format is None,
            "calibration": method.clip or method.baseline,
            "mix": method.train,
            "training": method.train,
        }
        for key, needed in needs.items():
            if needed and getattr(self, key) is None:
                raise ValueError(f"method {self.method} needs {key}")
            if not needed and getattr(self, key) is not None:
                raise ValueError(f"method {self.method} takes no {key}")
        if self.teacher is not None and not method.train:
            raise ValueError(f"method {self.method} takes no teacher")
        if self.when_available and not method.baseline:
            raise ValueError(f"method {self.method} takes no when_available: it needs no other environment")
        if self.nodes > 1 and not method.train:
            raise ValueError(f"method {self.method} takes no nodes")
        given = [] if method.grouped else sorted(self.model_fields_set.intersection(GROUPED))
        if given:
            raise ValueError(f"method {self.method} takes no {given[0]}: it has no groups")
        check_method(self.method, self.format, self.pad)
        for layout in self.layouts:
            self._check_layout(layout)
        return self

    def _check_layout(self, layout: LayoutName) -> None:
        method, integers = METHODS[self.method], layout == "compressed-tensors"
        bits = mixed_bits(self.format or "")
        if bits is not None:
            if not integers:
                raise ValueError(f"method {self.method} takes no layout {layout}; accepted: compressed-tensors")
            check_channel_integers(bits)
            return
        if not method.quantised or not method.grouped:
            raise ValueError(f"method {self.method} takes no layouts")
        if integers:
            raise ValueError(
                "layouts: compressed-tensors is for method llm-qat; others have it where they can as it is"
            )
        if layout == "dense":
            return
        held = ("int2",) if layout == "gguf-q2_0" else INTEGERS
        if self.format not in held or self.pad:
            raise ValueError(f"layouts: {layout} does not hold this run; accepted: {', '.join(held)} without pad")
