"""Tables and plots: of the whole experiment, or (`snakemake tables`) of whatever is finished."""


rule tabulate:
    input:
        expected_metrics,
    output:
        report(
            plan.tables / "main.csv",
            category="Results",
            labels={"experiment": experiment.experiment, "kind": "tidy numbers"},
            caption="../workflow/report/numbers.rst",
        ),
        report(
            plan.tables / "main.html",
            category="Results",
            labels={"experiment": experiment.experiment, "kind": "table"},
            caption="../workflow/report/table.rst",
        ),
        report(
            plan.tables / "perplexity_vs_bits.svg",
            category="Plots",
            labels={
                "experiment": experiment.experiment,
                "kind": "perplexity versus bits",
            },
            caption="../workflow/report/perplexity_vs_bits.rst",
        ),
        report(
            plan.tables / "training_curves.svg",
            category="Plots",
            labels={"experiment": experiment.experiment, "kind": "training curves"},
            caption="../workflow/report/training_curves.rst",
        ),
        report(
            plan.tables / "clip_error.svg",
            category="Plots",
            labels={"experiment": experiment.experiment, "kind": "clip search"},
            caption="../workflow/report/clip_error.rst",
        ),
        report(
            plan.tables / "clip_error.csv",
            category="Results",
            labels={
                "experiment": experiment.experiment,
                "kind": "clip search, layer by layer",
            },
            caption="../workflow/report/clip_error.rst",
        ),
        report(
            plan.tables / "cost.csv",
            category="Cost",
            labels={"experiment": experiment.experiment, "kind": "every output"},
            caption="../workflow/report/cost.rst",
        ),
        plan.tables / "cost.md",
        directory(plan.tables / "cards"),
        multiext(str(plan.tables / "main"), ".md", ".tex"),
        multiext(str(plan.tables / "perplexity_vs_bits"), ".png"),
        multiext(str(plan.tables / "training_curves"), ".png"),
        multiext(str(plan.tables / "clip_error"), ".png", ".md"),
        plan.tables / "coverage.json",
    log:
        f"logs/tabulate/{experiment.experiment}.log",
    benchmark:
        f"logs/benchmark/tabulate/{experiment.experiment}.tsv"
    conda:
        "../envs/train.yaml"
    params:
        recipe=as_text(plan.table_recipe()),
        output=plan.tables,
        work=f"work/tables/{experiment.experiment}",
    message:
        "write tables and plots"
    shell:
        "exec python -m bitdistiller tabulate --recipe {params.recipe:q} --output {params.output} --work {params.work}"
        " > {log} 2>&1"


rule tables:
    input:
        finished_metrics,
    log:
        f"logs/tables/{experiment.experiment}.log",
    conda:
        "../envs/train.yaml"
    params:
        recipe=as_text(plan.table_recipe()),
        output=plan.tables,
        work=f"work/tables/{experiment.experiment}",
    message:
        "write tables and plots of what is finished"
    shell:
        "exec python -m bitdistiller tabulate --recipe {params.recipe:q} --output {params.output} --work {params.work}"
        " > {log} 2>&1"


localrules:
    tabulate,
    tables,
