"""Where the distillation of a run starts: its blocks reconstructed one by one."""


rule warm_start:
    input:
        model="results/{model}/base/digest.json",
        tokens=lambda wildcards: digest_of(str(plan.tokens(wildcards.run))),
        samples=lambda wildcards: ancient(
            f"{plan.tokens(wildcards.run)}/tokens.safetensors"
        ),
        clip=lambda wildcards: digest_of(run_clip(wildcards)),
    output:
        start=directory("results/{model}/{run}/warm-start/start"),
        blocks="results/{model}/{run}/warm-start/blocks.json",
        digest="results/{model}/{run}/warm-start/digest.json",
        provenance="results/{model}/{run}/warm-start/provenance.json",
    log:
        "logs/warm-start/{model}.{run}.log",
    benchmark:
        "logs/benchmark/warm-start/{model}.{run}.tsv"
    conda:
        "../envs/train.yaml"
    threads: stage_resources("warm_start").threads
    resources:
        **job_resources("warm_start"),
    params:
        recipe=lambda wildcards: as_text(plan.warm_start_recipe(wildcards.run)),
        tokens=lambda wildcards: plan.tokens(wildcards.run),
        clip=lambda wildcards: run_clip(wildcards) or "none",
    message:
        "reconstruct the blocks of {wildcards.run}"
    shell:
        "exec python -m bitdistiller warm-start --recipe {params.recipe:q} --model results/{wildcards.model}/base/model"
        " --tokens {params.tokens} --clip {params.clip} --output results/{wildcards.model}/{wildcards.run}/warm-start"
        " --work work/{wildcards.model}/{wildcards.run}/warm-start --walltime {resources.runtime} > {log} 2>&1"
