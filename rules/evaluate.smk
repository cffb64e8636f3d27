"""One evaluation of one run: predictions first, metrics second."""


rule evaluate:
    input:
        model=lambda wildcards: digest_of(evaluated(wildcards)),
        reference=lambda wildcards: digest_of(
            [
                str(path.parent)
                for path in plan.reference(wildcards.run, wildcards.evaluation)
            ]
        ),
        data=evaluation_file,
    output:
        predictions="results/{model}/{run}/evaluation/{evaluation}/predictions.jsonl",
        metrics="results/{model}/{run}/evaluation/{evaluation}/metrics.json",
        digest="results/{model}/{run}/evaluation/{evaluation}/digest.json",
        provenance="results/{model}/{run}/evaluation/{evaluation}/provenance.json",
    log:
        "logs/evaluate/{model}.{run}.{evaluation}.log",
    benchmark:
        "logs/benchmark/evaluate/{model}.{run}.{evaluation}.tsv"
    conda:
        lambda wildcards: f"../envs/{plan.evaluation_kind(wildcards.run, wildcards.evaluation)}.yaml"
    container:
        lambda wildcards: image(
            REPOSITORY, plan.evaluation_kind(wildcards.run, wildcards.evaluation)
        )
    threads: stage_resources("evaluate").threads
    resources:
        **job_resources("evaluate"),
    params:
        recipe=evaluate_recipe,
        model=lambda wildcards: plan.evaluated_model(wildcards.run),
        options=lambda wildcards: [
            f"--reference {path}"
            for path in plan.reference(wildcards.run, wildcards.evaluation)
        ],
    message:
        "evaluate {wildcards.run} on {wildcards.evaluation}"
    shell:
        "exec python -m bitdistiller evaluate --recipe {params.recipe:q} --model {params.model} {params.options}"
        " --output results/{wildcards.model}/{wildcards.run}/evaluation/{wildcards.evaluation}"
        " --work work/{wildcards.model}/{wildcards.run}/evaluation/{wildcards.evaluation}"
        " --walltime {resources.runtime} > {log} 2>&1"
