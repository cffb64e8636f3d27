"""Asymmetric clip ranges, one job per model, calibration and format."""


rule clip:
    input:
        model="results/{model}/base/digest.json",
        texts=clip_texts,
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
    message:
        "search clip ranges {wildcards.clip} of {wildcards.model}"
    shell:
        "exec python -m bitdistiller clip --recipe {params.recipe:q} --model results/{wildcards.model}/base/model"
        " --output results/{wildcards.model}/clip/{wildcards.clip} --work work/{wildcards.model}/clip/{wildcards.clip}"
        " --walltime {resources.runtime} > {log} 2>&1"
