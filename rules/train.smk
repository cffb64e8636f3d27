"""The distilled student of one run; its checkpoints are in work/."""


rule train:
    input:
        model="results/{model}/base/digest.json",
        mix=lambda wildcards: digest_of(
            str(plan.mix(experiment.runs[wildcards.run].mix))
        ),
        samples=lambda wildcards: ancient(
            f"{plan.mix(experiment.runs[wildcards.run].mix)}/mix.jsonl"
        ),
        clip=lambda wildcards: digest_of(run_clip(wildcards)),
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
        **job_resources("train"),
    params:
        recipe=lambda wildcards: as_text(plan.train_recipe(wildcards.run)),
        mix=lambda wildcards: plan.mix(experiment.runs[wildcards.run].mix),
        clip=run_clip,
    message:
        "distil {wildcards.run}"
    shell:
        "exec python -m bitdistiller train --recipe {params.recipe:q} --model results/{wildcards.model}/base/model"
        " --mix {params.mix} --clip {params.clip} --output results/{wildcards.model}/{wildcards.run}/train"
        " --work work/{wildcards.model}/{wildcards.run}/train --walltime {resources.runtime} > {log} 2>&1"
