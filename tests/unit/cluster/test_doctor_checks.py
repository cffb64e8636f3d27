"""What each check says about a situation, and what the situation is made from; no cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from bitdistiller.cluster.doctor.demand import demands, stages_of
from bitdistiller.cluster.doctor.diagnose import examine, exit_code
from bitdistiller.cluster.doctor.finding import Finding, error, ok, skipped, warning
from bitdistiller.cluster.doctor.machine import Machine, Question, ask_python, is_writable, look
from bitdistiller.cluster.doctor.probe import Answer, Gpus, lock_of, read_answer
from bitdistiller.cluster.doctor.probing import telling_line
from bitdistiller.cluster.doctor.profile_file import Profile, find_profile
from bitdistiller.cluster.doctor.show import as_json, show
from bitdistiller.cluster.doctor.situation import Situation
from bitdistiller.cluster.doctor.targets import Silence, Target, request_of, targets
from bitdistiller.cluster.slurm import ClusterFacts, parse_nodes, parse_partitions
from bitdistiller.config import Experiment
from bitdistiller.errors import InputError
from bitdistiller.plan import Plan
from bitdistiller.recipes import load_experiment
from bitdistiller.stages.files import write_json

REPOSITORY = Path(__file__).parents[3]
PLUGINS = {
    "snakemake": "9.27.1",
    "snakemake-executor-plugin-slurm": "2.8.0",
    "snakemake-executor-plugin-slurm-jobstep": "0.6.1",
}
MACHINE = Machine("login", processes=-1, files=65536, versions=PLUGINS)
PROFILE = Profile(
    Path("profile.yaml"),
    {
        "slurm-status-command": "squeue",
        "slurm-requeue": True,
        "slurm-init-seconds-before-status-checks": 30,
        "latency-wait": 120,
        "jobs": 64,
        "default-resources": {"slurm_account": "a", "slurm_partition": "cpu", "gpu_partition": "gpu"},
    },
)
CONFIG = {
    "SLURM_VERSION": "24.05.1",
    "ClusterName": "c",
    "MinJobAge": "300 sec",
    "JobRequeue": "1",
    "KillWait": "30 sec",
    "PreemptType": "preempt/partition_prio",
}
PARTITIONS = """
PartitionName=cpu Nodes=c1 MaxTime=1-00:00:00 PreemptMode=OFF PriorityTier=5 Default=YES State=UP
PartitionName=gpu Nodes=g1 MaxTime=UNLIMITED PreemptMode=REQUEUE PriorityTier=5 State=UP
PartitionName=low Nodes=c1 MaxTime=UNLIMITED PreemptMode=CANCEL PriorityTier=1 State=DOWN
"""
NODES = """
NodeName=c1 CPUTot=64 RealMemory=256000 Gres=(null) State=IDLE Partitions=cpu,low
NodeName=g1 CPUTot=32 RealMemory=500000 Gres=gpu:a100:4(S:0-1) State=MIXED Partitions=gpu
"""
FACTS = ClusterFacts(
    CONFIG,
    {found.name: found for found in parse_partitions(PARTITIONS)},
    {found.name: found for found in parse_nodes(NODES)},
)
NODE = Answer("c1", replace(MACHINE, host="c1"), "", "exclusive", True, round_trip=0.2, clock_skew=0.1)
ON_GPU = replace(NODE, node="g1", gpus=Gpus(1, "torch 2.13.0: NVIDIA A100"))
CPU, GPU = Target("cpu", gpu=False), Target("gpu", gpu=True)


def plan_with(**resources: object) -> Plan:
    run = {"model": "m", "method": "rtn", "format": "int2", "group_size": 32}
    return Plan(
        Experiment.model_validate({"models": {"m": {"hub": "a/b"}}, "runs": {"r": run}, "resources": resources})
    )


def healthy(profile: Profile = PROFILE, facts: ClusterFacts = FACTS, **resources: object) -> Situation:
    wanted = resources or {"export": {"gpu": 2, "mem_mb": 8000}}
    found = demands(plan_with(**wanted), profile, facts)
    return Situation(
        profile,
        MACHINE,
        facts,
        clients={"squeue": "", "sacct": ""},
        demands=tuple(found),
        probes={CPU: NODE, GPU: ON_GPU},
    )


def changed(profile: Profile = PROFILE, **keys: object) -> Profile:
    return Profile(profile.path, {**profile.keys, **keys})


def told(**config: str) -> ClusterFacts:
    return replace(FACTS, config={**CONFIG, **config})


def levels(situation: Situation, name: str) -> set[str]:
    return {finding.level for finding in examine(situation) if finding.name == name}


def wrong(situation: Situation) -> dict[str, str]:
    return {found.name: found.level for found in examine(situation) if found.level not in ("ok",)}


def test_all_is_well():
    assert wrong(healthy()) == {}
    assert exit_code(examine(healthy())) == 0


def test_every_finding_that_is_not_fine_says_what_to_do():
    unwell = [
        healthy(changed(PROFILE, **{"slurm-requeue": False})),
        healthy(facts=told(MinJobAge="2 sec", KillWait="1 sec")),
        replace(healthy(), probes={CPU: replace(NODE, lock="shared", srun_problem="no"), GPU: Silence("gone", "look")}),
    ]
    for situation in unwell:
        found = [finding for finding in examine(situation) if finding.level in ("warning", "error")]
        assert found
        assert all(finding.seen and finding.advice for finding in found)


NODE_FAULTS = [
    (replace(NODE, srun_problem="Unable to contact slurm controller"), {"srun": "error"}),
    (replace(NODE, lock="shared"), {"locks": "warning"}),
    (replace(NODE, lock="[Errno 37] No locks available"), {"locks": "error"}),
    (replace(NODE, round_trip=121.0), {"shared-disk": "error"}),
    (replace(NODE, clock_skew=-400.0), {"clock": "warning"}),
    (replace(NODE, requeue=False), {"requeue": "error"}),
    (replace(NODE, machine=replace(MACHINE, python_problem="/x/python: no such file")), {"environment": "error"}),
    (replace(NODE, machine=replace(MACHINE, versions={"snakemake": "9"})), {"environment": "error"}),
    (replace(NODE, machine=replace(MACHINE, missing_tools=["conda"])), {"environment": "error"}),
    (replace(NODE, machine=replace(MACHINE, unreadable=["/m/config.json"])), {"files": "error"}),
    (replace(NODE, machine=replace(MACHINE, unwritable=["/work"])), {"files": "error"}),
    (replace(NODE, machine=replace(MACHINE, processes=100)), {"limits": "warning"}),
    (replace(NODE, gpus=Gpus(0, "torch 2.13.0: no device")), {"cuda": "error"}),
    (Silence("job 7 ended without an answer", "its log: x"), {"nodes": "error"}),
    (Silence("job 7 has not started", "give --patience", waiting=True), {"nodes": "warning"}),
]


@pytest.mark.parametrize(("outcome", "expected"), NODE_FAULTS)
def test_what_a_compute_node_lacks(outcome, expected):
    assert wrong(replace(healthy(), probes={CPU: outcome})) == expected


CLUSTER_FAULTS = [
    (told(MinJobAge="89 sec"), {"min-job-age": "error"}),
    (told(MinJobAge="90 sec"), {"min-job-age": "warning"}),
    (told(MinJobAge="181 sec"), {}),
    (told(KillWait="700 sec"), {"kill-wait": "warning"}),
    (told(JobRequeue="0"), {}),
    (told(PreemptType="preempt/qos"), {"preemption": "warning"}),
    (told(PreemptType="preempt/none"), {}),
]


@pytest.mark.parametrize(("facts", "expected"), CLUSTER_FAULTS)
def test_what_the_cluster_is_like(facts, expected):
    assert wrong(healthy(facts=facts)) == expected


def defaults(**values: object) -> Profile:
    return changed(PROFILE, **{"default-resources": {**PROFILE.defaults, **values}})


PROFILE_FAULTS = [
    (changed(PROFILE, **{"slurm-status-command": "sacct"}), {"status": "warning"}),
    (changed(PROFILE, **{"slurm-array-jobs": "all"}), {"profile": "error"}),
    (defaults(slurm_account="CHANGE_ME"), {"profile": "error"}),
    (defaults(slurm_partition="low"), {"partition": "error", "preemption": "error"}),
    (defaults(gpu_partition="cpu"), {"gpus": "error"}),
    (defaults(gpu_partition="nowhere"), {"partition": "error"}),
    (defaults(gpu_gres="gpu:h100"), {"gpus": "error"}),
    (defaults(gpu_gres="gpu:a100"), {}),
    (
        changed(PROFILE, **{"set-resources": {"export": {"runtime": 9999, "slurm_partition": "cpu"}}}),
        {"walltime": "error", "gpus": "error"},
    ),
    (changed(PROFILE, **{"set-resources": {"export": {"gres": "gpu:a100:5"}}}), {"gpus": "error"}),
    (changed(PROFILE, **{"set-threads": {"export": 33}}), {"cpus": "error"}),
    (changed(PROFILE, jobs=10000), {"limits": "warning"}),
]


@pytest.mark.parametrize(("profile", "expected"), PROFILE_FAULTS)
def test_what_the_profile_says(profile, expected):
    assert wrong(healthy(profile)) == expected


@pytest.mark.parametrize(
    ("export", "expected"),
    [
        ({"gpu": 5}, {"gpus": "error"}),
        ({"gpu": 1, "mem_mb": 600_000}, {"memory": "error"}),
        ({"runtime": 1441}, {"walltime": "error"}),
        ({"runtime": 1000}, {"walltime": "warning"}),
        ({"threads": 65}, {"cpus": "error"}),
    ],
)
def test_what_the_experiment_asks_for(export, expected):
    assert wrong(healthy(export=export)) == expected


def test_gpus_memory_and_cores_have_to_be_on_one_node():
    nodes = parse_nodes("NodeName=g2 CPUTot=128 RealMemory=1000000 Gres=(null) State=IDLE Partitions=gpu")
    facts = replace(FACTS, nodes={**FACTS.nodes, "g2": nodes[0]})
    assert wrong(healthy(facts=facts, export={"gpu": 1, "mem_mb": 600_000})) == {"gpus": "error"}
    assert wrong(healthy(facts=facts, export={"gpu": 1, "mem_mb": 500_000})) == {}


def test_a_training_across_nodes_needs_as_many_in_its_partition():
    situation = healthy()
    (demand,) = [demand for demand in situation.demands if demand.stage == "export"]
    two = replace(situation, demands=(replace(demand, nodes=2),))
    assert wrong(two) == {"several-nodes": "error"}
    again = parse_nodes("NodeName=g2 CPUTot=32 RealMemory=500000 Gres=gpu:a100:4 State=IDLE Partitions=gpu")
    assert wrong(replace(two, facts=replace(FACTS, nodes={**FACTS.nodes, "g2": again[0]}))) == {}


def test_a_file_of_partitions_is_chosen_from(tmp_path):
    (tmp_path / "partitions.yaml").write_text(yaml.safe_dump({"partitions": {"cpu": {}, "gpu": {}}}))
    keys = {**PROFILE.keys, "slurm-partition-config": "partitions.yaml", "default-resources": {}}
    profile = Profile(tmp_path / "profile.v9+.yaml", keys)
    found = {demand.stage: demand.partition for demand in demands(plan_with(export={"gpu": 1}), profile, FACTS)}
    assert found == {"fetch": "cpu", "export": "gpu"}
    assert wrong(healthy(profile)) == {}


def test_an_old_plugin_and_a_python_that_does_not_run():
    old = replace(MACHINE, versions={**PLUGINS, "snakemake-executor-plugin-slurm": "2.7.1"})
    assert wrong(replace(healthy(), login=old)) == {"plugin": "warning"}
    assert wrong(replace(healthy(), login=replace(MACHINE, versions={}))) == {"plugin": "error"}
    assert wrong(replace(healthy(), login=replace(MACHINE, python_problem="x: no such file"))) == {"plugin": "error"}


def test_without_a_cluster_the_rest_is_checked():
    situation = Situation(PROFILE, MACHINE, facts_problem="scontrol: not installed here", unprobed="no cluster")
    assert wrong(situation) == {"scheduler": "skipped", "nodes": "skipped"}
    assert {"profile", "plugin", "limits", "files"} <= {finding.name for finding in examine(situation)}


def test_targets_are_partitions_with_and_without_gpus():
    found = demands(plan_with(export={"gpu": 1}), PROFILE, FACTS)
    assert targets(found, "") == [CPU, GPU]
    assert targets(demands(plan_with(export={"gpu": 1}), PROFILE, FACTS, "low"), "") == [
        Target("low", gpu=False),
        Target("low", gpu=True),
    ]
    assert request_of(Target("gpu", gpu=True), "a").gpus == 1
    named = request_of(Target("gpu", gpu=True, gpu_gres="gpu:a100"), "a")
    assert (named.gpus, named.extra, named.account) == (None, ("gres=gpu:a100:1",), "a")


def test_the_stages_of_the_demo_and_of_a_large_experiment():
    demo = stages_of(Plan(load_experiment(REPOSITORY / "config.yaml")))
    assert {"pretrain_demo", "train", "evaluate", "generate"} <= set(demo)
    assert "fetch" not in demo
    large = Plan(load_experiment(REPOSITORY / "experiments" / "llama2-7b.yaml"))
    assert "fetch" in stages_of(large)
    assert all(demand.partition == "cpu" or demand.gpus for demand in demands(large, PROFILE, FACTS))


def test_profiles_are_found_where_snakemake_looks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    with pytest.raises(InputError, match="--profile slurm: no profile in slurm, "):
        find_profile("slurm")
    for folder, jobs in (("profiles/slurm", 1), ("home/snakemake/slurm", 2)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "profile.v9+.yaml").write_text(f"jobs: {jobs}")
        (tmp_path / folder / "config.v8+.yaml").write_text("jobs: 99")
        assert find_profile("slurm").jobs == jobs
    assert find_profile("profiles/slurm").jobs == 1
    assert find_profile("profiles/slurm/config.v8+.yaml").jobs == 99
    Path("list.yaml").write_text("- 1")
    with pytest.raises(InputError, match=r"list\.yaml: not a profile"):
        find_profile("list.yaml")


def test_resources_may_be_a_list_of_assignments(tmp_path):
    path = tmp_path / "profile.yaml"
    listed = {"default-resources": ["slurm_partition='cpu'", "mem_mb=5"], "set-resources": ["export:mem_mb=7"]}
    path.write_text(yaml.safe_dump(listed))
    profile = find_profile(str(path))
    assert profile.text("slurm_partition") == "cpu"
    assert profile.of_rule("export") == {"mem_mb": "7"}
    found = {demand.stage: demand.mem_mb for demand in demands(plan_with(), profile, FACTS)}
    assert found["export"] == 7


def test_looking_around_here(tmp_path):
    seen = look(Question("/nowhere/python", (str(tmp_path / "no"),), (str(tmp_path / "new"),), ("no-such-tool",)))
    assert seen.python_problem == "/nowhere/python: no such file"
    assert seen.unreadable == [str(tmp_path / "no")]
    assert (seen.unwritable, seen.missing_tools) == ([], ["no-such-tool"])
    assert not is_writable(Path("/proc/self"))


def test_a_python_that_cannot_import_snakemake(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'ModuleNotFoundError: snakemake' >&2\nexit 1\n")
    script.chmod(0o755)
    assert ask_python(str(script)) == (f"{script}: ModuleNotFoundError: snakemake", {})


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", "its log is empty"),
        ("a\nb\n", "b"),
        ("a\nsrun: error: x\nsrun: error: c1: task 0: Exited with exit code 2", "srun: error: x"),
        ("a\nsrun: error: c1: task 0: Exited with exit code 2", "srun: error: c1: task 0: Exited with exit code 2"),
    ],
)
def test_the_line_of_a_log_that_tells(log, line):
    assert telling_line(log) == line


def test_a_free_lock_is_shared_and_a_missing_folder_an_error(tmp_path):
    assert lock_of(tmp_path / "lock") == "shared"
    assert "No such file" in lock_of(tmp_path / "no" / "lock")


@pytest.mark.parametrize("answer", [NODE, ON_GPU])
def test_an_answer_survives_its_file(tmp_path, answer):
    from dataclasses import asdict

    write_json(tmp_path / "answer.json", asdict(answer))
    assert read_answer(tmp_path / "answer.json") == answer


def test_the_table_and_the_json():
    findings = [ok("status", "fine"), warning("a", "b", "c"), error("x", "y", "z"), skipped("s", "t")]
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    show(findings, console)
    text = console.export_text()
    assert "→ z" in text
    assert "1 ok, 1 warning, 1 error, 1 skipped" in text
    said = json.loads(as_json(findings, exit_code(findings)))
    assert said["exit_code"] == 1
    assert [Finding(**finding) for finding in said["findings"]] == findings
