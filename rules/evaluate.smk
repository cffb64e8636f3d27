"""One evaluation of one run as one job: predictions first, metrics second."""


rule evaluate:
    input:
        models=of_evaluation(lambda *names: digest_of(plan.compared_models(*names))),
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
    wildcard_constraints:
        evaluation=one_of(set(experiment.evaluations) - set(plan.sharded)),
    conda:
        of_evaluation(lambda *names: f"../envs/{plan.evaluation_kind(*names)}.yaml")
    container:
        of_evaluation(lambda *names: image(REPOSITORY, plan.evaluation_kind(*names)))
    threads: stage_resources("evaluate").threads
    resources:
        **job_resources("evaluate"),
    params:
        recipe=evaluate_recipe,
        options=of_evaluation(plan.evaluate_options),
    message:
        "evaluate {wildcards.run} on {wildcards.evaluation}"
    shell:
        "exec python -m bitdistiller evaluate --recipe {params.recipe:q} {params.options}"
        " --output results/{wildcards.model}/{wildcards.run}/evaluation/{wildcards.evaluation}"
        " --work work/{wildcards.model}/{wildcards.run}/evaluation/{wildcards.evaluation}"
        " --walltime {resources.runtime} > {log} 2>&1"
