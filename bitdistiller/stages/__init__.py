"""The life of a stage: fingerprint, run lock, attempts log, atomic files, deadline, digests and provenance."""

from bitdistiller.stages.digest import DIGEST, PROVENANCE, input_digest, verify
from bitdistiller.stages.run import Stage, open_stage

__all__ = ["DIGEST", "PROVENANCE", "Stage", "input_digest", "open_stage", "verify"]
