"""Asymmetric clip ranges, one job per model, calibration and format; of `calibration.shards` Gram jobs, if asked for."""


rule gram:
    input:
        model="results/{model}/base/digest.json",
        texts=lambda wildcards: outside(
            [plan.gram_recipe(gram_run(wildcards)).calibration.path]
        ),
    output:
        grams=directory("results/{model}/grams/{gram}/shards/{shard}/grams"),
        description="results/{model}/grams/{gram}/shards/{shard}/grams.json",
        digest="results/{model}/grams/{gram}/shards/{shard}/digest.json",
        provenance="results/{model}/grams/{gram}/shards/{shard}/provenance.json",
    log:
        "logs/gram/{model}.{gram}.{shard}.log",
    benchmark:
        "logs/benchmark/gram/{model}.{gram}.{shard}.tsv"
    conda:
        "../envs/train.yaml"
    threads: stage_resources("clip").threads
    resources:
        **job_resources("clip"),
    params:
        recipe=lambda wildcards: as_text(plan.gram_recipe(gram_run(wildcards))),
        shards=lambda wildcards: len(plan.gram_shards(gram_run(wildcards))),
    message:
        "take Gram matrices, shard {wildcards.shard} of {wildcards.gram}"
    shell:
        "exec python -m bitdistiller clip --shard $((10#{wildcards.shard})) --num-shards {params.shards}"
        " --recipe {params.recipe:q} --model results/{wildcards.model}/base/model"
        " --output results/{wildcards.model}/grams/{wildcards.gram}/shards/{wildcards.shard}"
        " --work work/{wildcards.model}/grams/{wildcards.gram}/shards/{wildcards.shard}"
        " --walltime {resources.runtime} > {log} 2>&1"


rule clip:
    input:
        model="results/{model}/base/digest.json",
        texts=clip_texts,
        grams=lambda wildcards: digest_of(
            map(str, plan.gram_shards(clip_run(wildcards)))
        ),
    output:
        ranges="results/{model}/clip/{clip}/clip.safetensors",
        layers="results/{model}/clip/{clip}/clip.json",
        digest="results/{model}/clip/{clip}/digest.json",
        provenance="results/{model}/clip/{clip}/provenance.json",
    log:
        "logs/clip/{model}.{clip}.log",
    benchmark:
        "logs/benchmark/clip/{model}.{clip}.tsv"
    conda:
        "../envs/train.yaml"
    threads: stage_resources("clip").threads
    resources:
        **job_resources("clip"),
    params:
        recipe=clip_recipe,
        grams=lambda wildcards, input: [
            f"--grams {Path(path).parent}" for path in input.grams
        ],
    message:
        "search clip ranges {wildcards.clip} of {wildcards.model}"
    shell:
        "exec python -m bitdistiller clip --recipe {params.recipe:q} {params.grams} --model results/{wildcards.model}/base/model"
        " --output results/{wildcards.model}/clip/{wildcards.clip} --work work/{wildcards.model}/clip/{wildcards.clip}"
        " --walltime {resources.runtime} > {log} 2>&1"
