"""A mix as tokens, encoded once for all runs that train on it with one tokenizer."""


rule tokenize:
    input:
        model=lambda wildcards: digest_of(
            str(plan.base(plan.run(tokens_run(wildcards)).model))
        ),
        mix=lambda wildcards: digest_of(str(plan.mix(wildcards.mix))),
        samples=lambda wildcards: ancient(f"{plan.mix(wildcards.mix)}/mix.jsonl"),
    output:
        tokens="results/{model}/mixes/{mix}/{tokens}/tokens.safetensors",
        digest="results/{model}/mixes/{mix}/{tokens}/digest.json",
        provenance="results/{model}/mixes/{mix}/{tokens}/provenance.json",
    log:
        "logs/tokenize/{model}.{mix}.{tokens}.log",
    benchmark:
        "logs/benchmark/tokenize/{model}.{mix}.{tokens}.tsv"
    conda:
        "../envs/train.yaml"
    threads: stage_resources("tokenize").threads
    resources:
        **job_resources("tokenize"),
    params:
        recipe=lambda wildcards: as_text(plan.tokenize_recipe(tokens_run(wildcards))),
        model=lambda wildcards: plan.base(plan.run(tokens_run(wildcards)).model),
        mix=lambda wildcards: plan.mix(wildcards.mix),
    message:
        "encode {wildcards.mix} as {wildcards.tokens}"
    shell:
        "exec python -m bitdistiller tokenize --recipe {params.recipe:q} --model {params.model}/model --mix {params.mix}"
        " --output results/{wildcards.model}/mixes/{wildcards.mix}/{wildcards.tokens}"
        " --work work/{wildcards.model}/mixes/{wildcards.mix}/{wildcards.tokens}"
        " --walltime {resources.runtime} > {log} 2>&1"
