"""How a measured value and its standard error are printed."""

from __future__ import annotations

import math
from dataclasses import dataclass

WHOLE_FROM = 1_000
SCIENTIFIC_FROM = 100_000
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Quantity:
    """Printed digits, and a power of ten where there is one."""

    digits: str
    exponent: int | None = None

    @property
    def plain(self) -> str:
        """`6.40`, `2.187e5`."""
        return self.digits if self.exponent is None else f"{self.digits}e{self.exponent}"

    @property
    def pretty(self) -> str:
        """`6.40`, `2.187×10⁵`."""
        return self.digits if self.exponent is None else f"{self.digits}×10{str(self.exponent).translate(SUPERSCRIPTS)}"

    @property
    def latex(self) -> str:
        r"""`6.40`, `$2.187\times10^{5}$`."""
        digits = self.digits.replace("<", "$<$").replace("∞", r"$\infty$")
        return digits if self.exponent is None else rf"${self.digits}\times10^{{{self.exponent}}}$"


def perplexity(value: float) -> Quantity:
    """Two decimals below 1000, whole numbers below 100 000, four significant digits from there."""
    if not math.isfinite(value):
        return Quantity("NaN" if math.isnan(value) else "∞")
    if value < WHOLE_FROM:
        return Quantity(f"{value:.2f}")
    return Quantity(f"{value:.0f}") if value < SCIENTIFIC_FROM else _scientific(value, 3)


def percent(value: float) -> Quantity:
    """A fraction in percent, two decimals."""
    return Quantity(f"{100 * value:.2f}") if math.isfinite(value) else perplexity(value)


def nats(value: float) -> Quantity:
    """A divergence, three decimals."""
    return Quantity(f"{value:.3f}") if math.isfinite(value) else perplexity(value)


PRINTED = {"perplexity": perplexity, "fraction": percent, "nats": nats}


def printed(value: float, quantity: str) -> Quantity:
    """A value of one of the quantities that `PRINTED` names."""
    return PRINTED[quantity](value)


def signed(value: float, quantity: str) -> Quantity:
    """A difference of such values, with its sign."""
    size = printed(abs(value), quantity)
    return Quantity(("-" if value < 0 else "+") + size.digits, size.exponent)


def standard_error(error: float, value: float, quantity: str) -> Quantity:
    """The standard error with the decimals of the value it belongs to."""
    if quantity == "fraction":
        return _at_least(100 * error, 2)
    if quantity == "nats":
        return _at_least(error, 3)
    if value < WHOLE_FROM:
        return _at_least(error, 2)
    return _at_least(error, 0) if value < SCIENTIFIC_FROM else _scientific(error, 1)


def count(number: int) -> str:
    """A whole number with three significant digits: `812`, `1.44 M`, `12.3 G`."""
    rounded = int(float(f"{number:.2e}"))
    for size, suffix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if rounded >= size:
            decimals = max(0, 3 - len(str(rounded // size)))
            return f"{rounded / size:.{decimals}f} {suffix}"
    return str(number)


def clock(hours: float) -> str:
    """A duration in hours as h:mm:ss, to the second."""
    seconds = round(3600 * hours)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _at_least(error: float, decimals: int) -> Quantity:
    smallest = 10.0**-decimals
    shown = f"{error:.{decimals}f}"
    return Quantity(f"<{smallest:.{decimals}f}" if error > 0 and float(shown) == 0 else shown)


def _scientific(value: float, decimals: int) -> Quantity:
    digits, _, exponent = f"{value:.{decimals}e}".partition("e")
    return Quantity(digits, int(exponent))
