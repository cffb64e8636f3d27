"""The full-precision model: downloaded, linked, or trained for the demo."""


rule fetch:
    input:
        model_files,
    output:
        model=directory("results/{model}/base/model"),
        digest="results/{model}/base/digest.json",
        provenance="results/{model}/base/provenance.json",
    log:
        "logs/fetch/{model}.log",
    benchmark:
        "logs/benchmark/fetch/{model}.tsv"
    wildcard_constraints:
        model="|".join(name for name in experiment.models if name not in DEMO_MODELS)
        or "(?!)",
    conda:
        "../envs/train.yaml"
    threads: stage_resources("fetch").threads
    resources:
        **job_resources("fetch"),
    params:
        origin=model_origin,
    message:
        "fetch {wildcards.model}"
    shell:
        "exec python -m bitdistiller fetch {params.origin} --output results/{wildcards.model}/base"
        " --work work/{wildcards.model}/base --walltime {resources.runtime} > {log} 2>&1"


rule pretrain_demo:
    output:
        model=directory("results/{model}/base/model"),
        corpus=directory("results/{model}/base/corpus"),
        history="results/{model}/base/training.jsonl",
        digest="results/{model}/base/digest.json",
        provenance="results/{model}/base/provenance.json",
    log:
        "logs/pretrain_demo/{model}.log",
    benchmark:
        "logs/benchmark/pretrain_demo/{model}.tsv"
    wildcard_constraints:
        model="|".join(DEMO_MODELS) or "(?!)",
    conda:
        "../envs/train.yaml"
    threads: stage_resources("pretrain_demo").threads
    resources:
        **job_resources("pretrain_demo"),
    params:
        recipe=lambda wildcards: as_text(experiment.models[wildcards.model].demo),
    message:
        "train the demo teacher {wildcards.model}"
    shell:
        "exec python -m bitdistiller pretrain-demo --recipe {params.recipe:q} --output results/{wildcards.model}/base"
        " --work work/{wildcards.model}/base --walltime {resources.runtime} > {log} 2>&1"
