"""A packed checkpoint in the files of another engine, or the reason why they cannot hold it."""


rule convert:
    input:
        "results/{model}/{run}/export/digest.json",
    output:
        checkpoint=directory("results/{model}/{run}/layouts/{layout}/checkpoint"),
        report="results/{model}/{run}/layouts/{layout}/convert.json",
        digest="results/{model}/{run}/layouts/{layout}/digest.json",
        provenance="results/{model}/{run}/layouts/{layout}/provenance.json",
    log:
        "logs/convert/{model}.{run}.{layout}.log",
    benchmark:
        "logs/benchmark/convert/{model}.{run}.{layout}.tsv"
    wildcard_constraints:
        layout="[a-z0-9_-]+",
    conda:
        "../envs/train.yaml"
    threads: stage_resources("convert").threads
    resources:
        **job_resources("convert"),
    message:
        "write {wildcards.run} as {wildcards.layout}"
    shell:
        "exec python -m bitdistiller convert --mark --layout {wildcards.layout}"
        " --checkpoint results/{wildcards.model}/{wildcards.run}/export/checkpoint"
        " --output results/{wildcards.model}/{wildcards.run}/layouts/{wildcards.layout}"
        " --work work/{wildcards.model}/{wildcards.run}/layouts/{wildcards.layout}"
        " --walltime {resources.runtime} > {log} 2>&1"
