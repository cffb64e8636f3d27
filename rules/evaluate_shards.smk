"""One evaluation of one run in shards: jobs that do a range of its items each, and one that puts them together."""


rule evaluate_shard:
    input:
        models=of_evaluation(lambda *names: digest_of(plan.compared_models(*names))),
        data=evaluation_file,
    output:
        batches="results/{model}/{run}/evaluation/{evaluation}/shards/{shard}/batches.jsonl",
        about="results/{model}/{run}/evaluation/{evaluation}/shards/{shard}/shard.json",
        digest="results/{model}/{run}/evaluation/{evaluation}/shards/{shard}/digest.json",
        provenance="results/{model}/{run}/evaluation/{evaluation}/shards/{shard}/provenance.json",
    log:
        "logs/evaluate/{model}.{run}.{evaluation}.{shard}.log",
    benchmark:
        "logs/benchmark/evaluate/{model}.{run}.{evaluation}.{shard}.tsv"
    wildcard_constraints:
        evaluation=one_of(plan.sharded),
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
        shards=lambda wildcards: experiment.evaluations[wildcards.evaluation].shards,
    message:
        "evaluate {wildcards.run} on {wildcards.evaluation}, shard {wildcards.shard}"
    shell:
        "exec python -m bitdistiller evaluate --recipe {params.recipe:q} {params.options}"
        " --shard $((10#{wildcards.shard})) --num-shards {params.shards}"
        " --output results/{wildcards.model}/{wildcards.run}/evaluation/{wildcards.evaluation}/shards/{wildcards.shard}"
        " --work work/{wildcards.model}/{wildcards.run}/evaluation/{wildcards.evaluation}/shards/{wildcards.shard}"
        " --walltime {resources.runtime} > {log} 2>&1"


rule merge_evaluation:
    input:
        models=of_evaluation(lambda *names: digest_of(plan.compared_models(*names))),
        data=evaluation_file,
        shards=of_evaluation(lambda *names: digest_of(plan.evaluation_shards(*names))),
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
        evaluation=one_of(plan.sharded),
    conda:
        "../envs/train.yaml"
    threads: stage_resources("mix").threads
    resources:
        **job_resources("mix"),
    params:
        recipe=evaluate_recipe,
        options=of_evaluation(plan.evaluate_options),
        parts=of_evaluation(
            lambda *names: [
                f"--part {path}" for path in plan.evaluation_shards(*names)
            ]
        ),
    message:
        "put the shards of {wildcards.run} on {wildcards.evaluation} together"
    shell:
        "exec python -m bitdistiller evaluate --recipe {params.recipe:q} {params.options} {params.parts}"
        " --output results/{wildcards.model}/{wildcards.run}/evaluation/{wildcards.evaluation}"
        " --work work/{wildcards.model}/{wildcards.run}/evaluation/{wildcards.evaluation}/merge"
        " --walltime {resources.runtime} > {log} 2>&1"
