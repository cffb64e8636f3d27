"""What the teacher says about every token of a mix, one job per shard; only runs with `teacher: cached` ask for it."""


rule cache_teacher:
    input:
        model="results/{model}/base/digest.json",
        tokens=lambda wildcards: digest_of(str(plan.tokens(cache_run(wildcards)))),
        samples=lambda wildcards: ancient(
            f"{plan.tokens(cache_run(wildcards))}/tokens.safetensors"
        ),
    output:
        chunks=directory("results/{model}/mixes/{mix}/{cache}/shards/{shard}/chunks"),
        digest="results/{model}/mixes/{mix}/{cache}/shards/{shard}/digest.json",
        provenance="results/{model}/mixes/{mix}/{cache}/shards/{shard}/provenance.json",
    log:
        "logs/cache_teacher/{model}.{mix}.{cache}.{shard}.log",
    benchmark:
        "logs/benchmark/cache_teacher/{model}.{mix}.{cache}.{shard}.tsv"
    conda:
        "../envs/train.yaml"
    threads: stage_resources("cache").threads
    resources:
        **job_resources("cache"),
    params:
        recipe=lambda wildcards: as_text(plan.cache_recipe(cache_run(wildcards))),
        tokens=lambda wildcards: plan.tokens(cache_run(wildcards)),
        shards=lambda wildcards: len(plan.cache_shards(cache_run(wildcards))),
    message:
        "run the teacher over {wildcards.mix}, shard {wildcards.shard} of {wildcards.cache}"
    shell:
        "exec python -m bitdistiller cache-teacher --recipe {params.recipe:q}"
        " --model results/{wildcards.model}/base/model --tokens {params.tokens}"
        " --shard $((10#{wildcards.shard})) --num-shards {params.shards}"
        " --output results/{wildcards.model}/mixes/{wildcards.mix}/{wildcards.cache}/shards/{wildcards.shard}"
        " --work work/{wildcards.model}/mixes/{wildcards.mix}/{wildcards.cache}/shards/{wildcards.shard}"
        " --walltime {resources.runtime} > {log} 2>&1"
