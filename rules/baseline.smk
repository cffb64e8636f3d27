"""The weights that a quantisation library chooses for one run, in the libraries' own environment."""


rule baseline:
    input:
        model="results/{model}/base/digest.json",
        texts=lambda wildcards: outside(
            [plan.baseline_recipe(wildcards.run).calibration.path]
        ),
    output:
        quantised=directory("results/{model}/{run}/baseline/quantised"),
        report="results/{model}/{run}/baseline/baseline.json",
        digest="results/{model}/{run}/baseline/digest.json",
        provenance="results/{model}/{run}/baseline/provenance.json",
    log:
        "logs/baseline/{model}.{run}.log",
    benchmark:
        "logs/benchmark/baseline/{model}.{run}.tsv"
    conda:
        "../envs/baselines.yaml"
    container:
        image(REPOSITORY, "baselines")
    threads: stage_resources("baseline").threads
    resources:
        **job_resources("baseline"),
    params:
        recipe=lambda wildcards: as_text(plan.baseline_recipe(wildcards.run)),
    message:
        "let a library quantise {wildcards.run}"
    shell:
        "exec $BASELINES_PYTHON -m bitdistiller baseline --recipe {params.recipe:q}"
        " --model results/{wildcards.model}/base/model --output results/{wildcards.model}/{wildcards.run}/baseline"
        " --work work/{wildcards.model}/{wildcards.run}/baseline --walltime {resources.runtime} > {log} 2>&1"
