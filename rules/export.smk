"""The packed checkpoint of a quantised run."""


rule export:
    input:
        weights=lambda wildcards: digest_of(export_source(wildcards)),
        clip=lambda wildcards: digest_of(untrained_clip(wildcards)),
    output:
        checkpoint=directory("results/{model}/{run}/export/checkpoint"),
        layers="results/{model}/{run}/export/export.json",
        digest="results/{model}/{run}/export/digest.json",
        provenance="results/{model}/{run}/export/provenance.json",
    log:
        "logs/export/{model}.{run}.log",
    benchmark:
        "logs/benchmark/export/{model}.{run}.tsv"
    conda:
        "../envs/train.yaml"
    threads: stage_resources("export").threads
    resources:
        **job_resources("export"),
    params:
        recipe=lambda wildcards: as_text(plan.export_recipe(wildcards.run)),
        options=export_options,
    message:
        "pack and verify {wildcards.run}"
    shell:
        "exec python -m bitdistiller export --recipe {params.recipe:q} {params.options}"
        " --output results/{wildcards.model}/{wildcards.run}/export"
        " --work work/{wildcards.model}/{wildcards.run}/export --walltime {resources.runtime} > {log} 2>&1"
