"""
The one source of every option: its meaning, unit and default.

An experiment file holds models, mixes, calibrations, trainings, evaluations and runs; a run joins them by name.
`python -m bitdistiller schema` writes `workflow/schemas/config.schema.json` from these classes.
"""

from bitdistiller.config.ablation import Ablation
from bitdistiller.config.base import (
    INTEGERS,
    OWN_FORMATS,
    Dtype,
    FormatName,
    Fraction,
    LayoutName,
    LossName,
    Name,
    Section,
    format_names,
    loss_names,
)
from bitdistiller.config.calibration import (
    SEARCH_ONLY,
    Calibration,
    CalibrationDataset,
    ClipRecipe,
    GramRecipe,
    Quantization,
)
from bitdistiller.config.data import EngineName, Generation, Mix, PromptDataset, PromptSource, TokenizeRecipe, Writing
from bitdistiller.config.evaluation import (
    OFFICIAL_TASKS,
    AgreementEvaluation,
    Average,
    CodeDataset,
    CodeEvaluation,
    Evaluated,
    EvaluateRecipe,
    Evaluation,
    GenerativeEvaluation,
    MathDataset,
    MathEvaluation,
    MultipleChoiceEvaluation,
    PerplexityDataset,
    PerplexityEvaluation,
    TextEvaluation,
)
from bitdistiller.config.experiment import RESERVED_RUN_NAMES, Experiment, Resources, StageResources
from bitdistiller.config.export import ConvertRecipe, ExportRecipe
from bitdistiller.config.models import DemoTeacherRecipe, Model
from bitdistiller.config.runs import METHODS, BaselineRecipe, Method, Run, check_method
from bitdistiller.config.training import (
    CacheRecipe,
    TeacherCache,
    Training,
    TrainRecipe,
    WarmStart,
    WarmStartRecipe,
    check_trained_scales,
)

__all__ = [
    "INTEGERS",
    "METHODS",
    "OFFICIAL_TASKS",
    "OWN_FORMATS",
    "RESERVED_RUN_NAMES",
    "SEARCH_ONLY",
    "Ablation",
    "AgreementEvaluation",
    "Average",
    "BaselineRecipe",
    "CacheRecipe",
    "Calibration",
    "CalibrationDataset",
    "ClipRecipe",
    "CodeDataset",
    "CodeEvaluation",
    "ConvertRecipe",
    "DemoTeacherRecipe",
    "Dtype",
    "EngineName",
    "EvaluateRecipe",
    "Evaluated",
    "Evaluation",
    "Experiment",
    "ExportRecipe",
    "FormatName",
    "Fraction",
    "Generation",
    "GenerativeEvaluation",
    "GramRecipe",
    "LayoutName",
    "LossName",
    "MathDataset",
    "MathEvaluation",
    "Method",
    "Mix",
    "Model",
    "MultipleChoiceEvaluation",
    "Name",
    "PerplexityDataset",
    "PerplexityEvaluation",
    "PromptDataset",
    "PromptSource",
    "Quantization",
    "Resources",
    "Run",
    "Section",
    "StageResources",
    "TeacherCache",
    "TextEvaluation",
    "TokenizeRecipe",
    "TrainRecipe",
    "Training",
    "WarmStart",
    "WarmStartRecipe",
    "Writing",
    "check_method",
    "check_trained_scales",
    "format_names",
    "loss_names",
]
