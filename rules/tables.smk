"""Tables and plots: of the whole experiment, or (`snakemake tables`) of whatever is finished."""

REPORTED = {
    "report.html": ("Results", "everything on a page", "page"),
    "main.html": ("Results", "table", "table"),
    "main.csv": ("Results", "tidy numbers", "numbers"),
    "clip_error.csv": ("Results", "clip search, layer by layer", "clip_error"),
    "cost.csv": ("Cost", "every output", "cost"),
    "perplexity_vs_bits.svg": ("Plots", "perplexity versus bits", "perplexity_vs_bits"),
    "accuracy_vs_bits.svg": ("Plots", "accuracy versus bits", "accuracy_vs_bits"),
    "training_curves.svg": ("Plots", "training curves", "training_curves"),
    "clip_error.svg": ("Plots", "clip search: errors", "clip_error"),
    "clip_ratio.svg": ("Plots", "clip search: what was kept", "clip_error"),
}


rule tabulate:
    input:
        expected_metrics,
    output:
        *[
            report(
                plan.tables / name,
                category=category,
                labels={"experiment": experiment.experiment, "kind": kind},
                caption=f"../workflow/report/{caption}.rst",
            )
            for name, (category, kind, caption) in REPORTED.items()
        ],
        multiext(str(plan.tables / "main"), ".md", ".tex"),
        [
            (plan.tables / name).with_suffix(".png")
            for name in REPORTED
            if name.endswith(".svg")
        ],
        multiext(str(plan.tables / "ablation"), ".csv", ".md", ".tex", ".html"),
        directory(plan.tables / "cards"),
        plan.tables / "clip_error.md",
        plan.tables / "cost.md",
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
