"""Teacher completions, one job per shard."""


rule generate:
    input:
        model="results/{model}/base/digest.json",
        sources=mix_sources,
    output:
        completions="results/{model}/mixes/{mix}/shards/{shard}/completions.jsonl",
        digest="results/{model}/mixes/{mix}/shards/{shard}/digest.json",
        provenance="results/{model}/mixes/{mix}/shards/{shard}/provenance.json",
    log:
        "logs/generate/{model}.{mix}.{shard}.log",
    benchmark:
        "logs/benchmark/generate/{model}.{mix}.{shard}.tsv"
    conda:
        lambda wildcards: f"../envs/{plan.mix_kind(wildcards.mix)}.yaml"
    container:
        lambda wildcards: image(REPOSITORY, plan.mix_kind(wildcards.mix))
    threads: stage_resources("generate").threads
    resources:
        **job_resources("generate"),
    params:
        recipe=mix_recipe,
        shards=lambda wildcards: experiment.mixes[wildcards.mix].shards,
        dtype=lambda wildcards: experiment.models[wildcards.model].dtype,
    message:
        "complete prompts, shard {wildcards.shard} of {wildcards.mix}"
    shell:
        "exec python -m bitdistiller generate --recipe {params.recipe:q} --model results/{wildcards.model}/base/model"
        " --dtype {params.dtype} --shard $((10#{wildcards.shard})) --num-shards {params.shards}"
        " --output results/{wildcards.model}/mixes/{wildcards.mix}/shards/{wildcards.shard}"
        " --work work/{wildcards.model}/mixes/{wildcards.mix}/shards/{wildcards.shard}"
        " --walltime {resources.runtime} > {log} 2>&1"
