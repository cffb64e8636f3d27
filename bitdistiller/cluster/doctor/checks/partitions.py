"""The partitions that jobs go to, and what happens to jobs there that have to leave."""

from __future__ import annotations

from collections.abc import Iterator

from bitdistiller.cluster.doctor.finding import Finding, error, ok, warning
from bitdistiller.cluster.doctor.profile_file import UNSET
from bitdistiller.cluster.doctor.situation import Situation
from bitdistiller.cluster.slurm import Node
from bitdistiller.cluster.start import cancelling
from bitdistiller.stages.deadline import MARGIN_SECONDS
from bitdistiller.stages.lock import WAIT_SECONDS


def check_partitions(situation: Situation) -> Iterator[Finding]:
    """They are there and up, and the profile is filled in."""
    profile = situation.profile
    unset = [name for name in ("slurm_account", "slurm_partition") if profile.text(name) == UNSET]
    if unset:
        advice = "bitdistiller profile install slurm --account A --partition P, or edit the file"
        yield error("profile", f"{profile.path}: {', '.join(unset)} not set", advice)
    else:
        yield ok("profile", f"{profile.path}")
    if situation.facts is None:
        return
    wanted = dict.fromkeys(demand.partition for demand in situation.demands)
    known = ", ".join(situation.facts.partitions)
    for name in wanted:
        if name is None:
            yield error("partition", "no default partition", f"name one of {known} in the profile")
        elif name not in situation.facts.partitions:
            yield error("partition", f"{name}: no such partition", f"accepted: {known}")
    for name, partition in situation.partitions.items():
        state = partition.record.get("State", "UP")
        if state != "UP":
            yield error("partition", f"{name} is {state}", "choose another in the profile, or wait")
        elif not any(map(_is_up, situation.facts.nodes_of(name))):
            yield warning("partition", f"{name}: no node is up", "jobs will wait; see sinfo")
        else:
            yield ok("partition", f"{name}: {partition.nodes}")


def _is_up(node: Node) -> bool:
    return not any(word in node.state for word in ("DOWN", "DRAIN", "FAIL", "INVAL", "MAINT"))


def check_preemption(situation: Situation) -> Iterator[Finding]:
    """Preempted jobs are requeued, not cancelled."""
    if situation.facts is None:
        return
    kind = situation.facts.config.get("PreemptType", "preempt/none")
    if kind in ("preempt/none", "(null)"):
        yield ok("preemption", "jobs are not preempted here")
        return
    for name, partition in situation.partitions.items():
        mode = partition.preempt_mode.upper()
        if any(cancelling([partition], situation.facts)):
            seen = f"{name}: PreemptMode=CANCEL; Snakemake would wait for a preempted job for ever"
            yield error("preemption", seen, "use a partition with PreemptMode=REQUEUE or OFF")
        elif kind == "preempt/qos":
            seen = f"{name}: the QOS decides (preempt/qos)"
            advice = "see that its PreemptMode is not cancel: sacctmgr show qos format=name,preemptmode"
            yield warning("preemption", seen, advice)
        else:
            yield ok("preemption", f"{name}: PreemptMode={mode}")


def check_kill_wait(situation: Situation) -> Iterator[Finding]:
    """A cancelled job has time to save, and its end is not awaited for longer than the next attempt waits."""
    seconds = situation.facts.number("KillWait") if situation.facts else None
    if seconds is None:
        return
    if seconds < MARGIN_SECONDS:
        seen = f"KillWait {seconds} s: cancelled jobs lose what they did since their last save"
        advice = f"none needed; with {MARGIN_SECONDS:.0f} s (slurm.conf) stages would save first"
        yield warning("kill-wait", seen, advice)
    elif seconds > WAIT_SECONDS:
        seen = f"KillWait {seconds} s is longer than a next attempt waits for the last one ({WAIT_SECONDS:.0f} s)"
        yield warning("kill-wait", seen, "none needed; attempts may end with 75 and come again")
    else:
        yield ok("kill-wait", f"KillWait {seconds} s")
