"""The distilled student of one run; its checkpoints are in work/."""


rule train:
    input:
        model="results/{model}/base/digest.json",
        teacher=lambda wildcards: digest_of(str(plan.base(plan.teacher(wildcards.run)))),
        tokens=lambda wildcards: digest_of(str(plan.tokens(wildcards.run))),
        samples=lambda wildcards: ancient(
            f"{plan.tokens(wildcards.run)}/tokens.safetensors"
        ),
        cache=lambda wildcards: digest_of(map(str, plan.cache_shards(wildcards.run))),
        chunks=lambda wildcards: [
            ancient(f"{path}/chunks") for path in plan.cache_shards(wildcards.run)
        ],
        clip=lambda wildcards: digest_of(run_clip(wildcards)),
        start=lambda wildcards: digest_of(map(str, plan.warm_start(wildcards.run))),
    output:
        student=directory("results/{model}/{run}/train/student"),
        history="results/{model}/{run}/train/history.jsonl",
        gamma="results/{model}/{run}/train/gamma.json",
        digest="results/{model}/{run}/train/digest.json",
        provenance="results/{model}/{run}/train/provenance.json",
    log:
        "logs/train/{model}.{run}.log",
    benchmark:
        "logs/benchmark/train/{model}.{run}.tsv"
    conda:
        "../envs/train.yaml"
    threads: stage_resources("train").threads
    resources:
        **train_resources(),
    params:
        recipe=lambda wildcards: as_text(plan.train_recipe(wildcards.run)),
        tokens=lambda wildcards: plan.tokens(wildcards.run),
        others=lambda wildcards: plan.train_inputs(wildcards.run),
        clip=lambda wildcards: run_clip(wildcards) or "none",
    message:
        "distil {wildcards.run}"
    shell:
        "exec python -m bitdistiller train --recipe {params.recipe:q} --model results/{wildcards.model}/base/model"
        " --tokens {params.tokens} --clip {params.clip} {params.others}"
        " --output results/{wildcards.model}/{wildcards.run}/train"
        " --work work/{wildcards.model}/{wildcards.run}/train"
        " --nodes {resources.nodes} --walltime {resources.runtime} > {log} 2>&1"
