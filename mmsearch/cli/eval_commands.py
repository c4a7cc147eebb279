"""The command that measures how well an index answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmsearch.cli.bars import counting_bar
from mmsearch.cli.options import IndexOption, JsonOption, Only, with_options
from mmsearch.cli.output import print_json
from mmsearch.core.errors import UsageError
from mmsearch.core.options import EncoderOptions
from mmsearch.evaluate.options import EvaluationOptions


@with_options(
    "file index qrels sidecars template alpha judgements rerank rerank_depth rerank_questions save compare plot device"
)
def eval_command(
    file: Annotated[
        Path | None,
        typer.Argument(help="Captions (image<TAB>caption), labels (JSON Lines), or TREC queries.", show_default=False),
    ] = None,
    index: IndexOption = "default",
    qrels: Annotated[Path | None, typer.Option(help="TREC judgements of the queries in FILE.")] = None,
    sidecars: Annotated[bool, typer.Option("--sidecars", help="Ask the captions that lie beside the files.")] = False,
    template: Annotated[str, typer.Option(help="Words around the name of a labelled object.")] = "a photo of a {}.",
    judgements: Annotated[
        Path | None, typer.Option(help="Graded pairs (image<TAB>caption<TAB>grade…): Kendall's tau.")
    ] = None,
    rerank: Annotated[
        str | None, typer.Option(metavar="NAME", help="Also measure what this reranker gains, such as builtin.")
    ] = None,
    rerank_depth: Annotated[int, typer.Option(min=1, help="How many results the reranker sees.")] = 50,
    save: Annotated[Path | None, typer.Option(help="Save the run, to compare others with it.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Test against a saved run, question by question.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw hit@k over k into this image file (extra plot).")] = None,
    *,
    options: EvaluationOptions,
    encoder: Annotated[EncoderOptions, Only(("device",))],
    json_: JsonOption = False,
) -> None:
    """Measures how well an index answers, on captions, labels or judged queries of your own."""
    from mmsearch.api import Index
    from mmsearch.evaluate import check_drawing, compare_saved, draw_runs, load_run, save_run

    if (file is None) == (not sidecars) and judgements is None:
        raise UsageError("give a file of captions, labels or queries, or --sidecars")
    if plot is not None:
        check_drawing()
    earlier = load_run(compare) if compare is not None else None
    with Index.open(index, options=encoder) as opened:
        if file is not None or sidecars:
            reranker = None if rerank is None else opened.reranker(rerank)
            with counting_bar("reranking", hidden=json_ or reranker is None) as progress:
                run = opened.evaluate(
                    file, qrels=qrels, template=template, options=options,
                    reranker=reranker, rerank_depth=rerank_depth, progress=progress,
                )  # fmt: skip
            compared = {} if earlier is None else compare_saved(run, earlier)
            if save is not None:
                save_run(run, save)
            if plot is not None:
                others = [] if earlier is None or compare is None else [(compare.stem, earlier)]
                draw_runs([("this run", run), *others], plot)
            _print_run(run, compared, as_json=json_)
        if judgements is not None:
            captions = None if file is None or qrels is not None else file
            _print_agreement(opened.agreement(judgements, captions=captions), as_json=json_)


def _print_run(run: Any, compared: dict[str, Any], *, as_json: bool) -> None:
    from dataclasses import asdict

    from mmsearch.evaluate import DEFINITIONS

    questions = len(next(iter(run.per_question.values())))
    if as_json:
        values = {key: value for key, value in asdict(run).items() if key != "per_question"}
        tests = {name: asdict(test) for name, test in compared.items()}
        print_json({**values, "questions": questions, "definitions": DEFINITIONS, "compared": tests})
        return
    print(f"encoder   {run.encoder}")
    left_out = f"{run.left_out:,} left out (answer not indexed)"
    print(f"gallery   {run.gallery:,} images and videos; {questions:,} questions, {left_out}")
    print(f"search    {run.recipe}; finds {100 * run.index_recall:.1f} % of the 10 exactly nearest\n")
    if run.two_way:
        print("by cosines, in percent")
        for name, value in run.two_way.items():
            print(f"  {name:27} {value:6.2f}")
        print("\nas searched (with the hubness correction), 95 % intervals over questions")
    for name, figure in run.figures.items():
        is_rank = name == "median rank"
        middle, low, high = (_number(figure[end], is_rank=is_rank) for end in ("estimate", "low", "high"))
        line = f"  {name:16} {middle}  [{low}, {high}]"
        if name in compared:
            test = compared[name]
            line += f"   {test.difference.estimate:+.4f} against the saved run, p = {test.p_value:.4f}"
            line += f" ({test.wins} better, {test.losses} worse)"
        print(line)
    for stage, what in ((run.index_loss, "the vector index"), (run.rerank_gain, "the reranker")):
        if stage is not None:
            _print_stage(stage, what)
    print()
    for name, meaning in DEFINITIONS.items():
        if not name.startswith("R@k") or name.replace("k", "1", 1) in run.two_way:
            print(f"  {name}: {meaning}")


def _print_stage(stage: dict[str, Any], what: str) -> None:
    """What a stage changes: its figures beside those of exact search alone, and the time of a question."""
    print(f"\n{what}, over {stage['questions']:,} questions: without, with, change with 95 % interval")
    for name, before in stage["before"].items():
        change = stage["change"][name]
        low, high = change["difference"]["low"], change["difference"]["high"]
        print(
            f"  {name:16} {before:.4f}  {stage['after'][name]:.4f}  {change['difference']['estimate']:+.4f} "
            f"[{low:+.4f}, {high:+.4f}], p = {change['p_value']:.4f}"
        )
    if stage["seconds"] is not None:
        without, with_it = stage["seconds"]
        print(f"  time a question  {1000 * without:.0f} ms  {1000 * with_it:.0f} ms (medians)")


def _number(value: float | None, *, is_rank: bool) -> str:
    return "beyond" if value is None else f"{value:.1f}" if is_rank else f"{value:.4f}"


def _print_agreement(values: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        print_json({"agreement": values})
        return
    print(
        f"agreement with {values['judgements']:,.0f} human grades: Kendall's tau-b {100 * values['tau_b']:.1f}, "
        f"tau-c {100 * values['tau_c']:.1f} (times 100); {values['left_out']:,.0f} pairs left out"
    )


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("eval", short_help="Measure how well an index answers")(eval_command)
