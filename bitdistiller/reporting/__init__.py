"""Tables and plots from finished results; reads files, never models."""

from bitdistiller.reporting.build import build_table
from bitdistiller.reporting.collect import Collected, collect
from bitdistiller.reporting.coverage import Coverage
from bitdistiller.reporting.tables import Table

__all__ = ["Collected", "Coverage", "Table", "build_table", "collect"]
