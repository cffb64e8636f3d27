"""Which layout a number format is written in."""

from bitdistiller.config import ExportRecipe
from bitdistiller.export.compressed_tensors import PackQuantized
from bitdistiller.export.layout import Layout
from bitdistiller.export.lookup import Lookup
from bitdistiller.export.ungrouped import ungrouped
from bitdistiller.formats import get_format


def get_layout(recipe: ExportRecipe) -> Layout:
    """The layout that serving engines read where the number format has one and every group is full, else our own."""
    own = ungrouped(recipe.quantization)
    if own is not None:
        return own.layout(recipe)
    served = get_format(recipe.quantization.format).packable and not recipe.quantization.pad
    return PackQuantized(recipe) if served else Lookup(recipe)
