"""The paper's numeric sentences, recomputed from its tables and from our models.

- ``results/paper/claims.yaml``: every sentence, its place, its figures, and the formulas.
- `superbit.benchmark.claims.formula`: the small language of those formulas.
- `superbit.benchmark.claims.figures`: what a formula can refer to.
- `superbit.benchmark.claims.data`: the file's schema and its reader.
- `superbit.benchmark.claims.check`: the rules that give the verdicts.
- `superbit.benchmark.claims.rendering`: printing.

Nothing here imports torch until our models' figures are asked for.
"""
