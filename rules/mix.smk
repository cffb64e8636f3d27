"""All shards of a mix become one training file."""


rule mix:
    input:
        shards=lambda wildcards: digest_of(mix_shards(wildcards)),
        completions=lambda wildcards: [
            ancient(f"{path}/completions.jsonl") for path in mix_shards(wildcards)
        ],
    output:
        mix="results/{model}/mixes/{mix}/mix/mix.jsonl",
        digest="results/{model}/mixes/{mix}/mix/digest.json",
        provenance="results/{model}/mixes/{mix}/mix/provenance.json",
    log:
        "logs/mix/{model}.{mix}.log",
    benchmark:
        "logs/benchmark/mix/{model}.{mix}.tsv"
    conda:
        "../envs/train.yaml"
    threads: stage_resources("mix").threads
    resources:
        **job_resources("mix"),
    params:
        recipe=mix_recipe,
        shards=lambda wildcards: [f"--shard {path}" for path in mix_shards(wildcards)],
    message:
        "merge the shards of {wildcards.mix}"
    shell:
        "exec python -m bitdistiller mix --recipe {params.recipe:q} {params.shards}"
        " --output results/{wildcards.model}/mixes/{wildcards.mix}/mix"
        " --work work/{wildcards.model}/mixes/{wildcards.mix}/mix --walltime {resources.runtime} > {log} 2>&1"
