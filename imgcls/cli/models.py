"""`imgcls models`: the store, and which model answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcls import console
from imgcls.cli.options import Json, Tag

if TYPE_CHECKING:
    from rich.table import Table

    from imgcls.card import ModelCard
    from imgcls.registry import Registry
    from imgcls.schemas import Opinion, ShadowReport

app = typer.Typer(no_args_is_help=True, help="List, inspect, activate, move and remove models.")

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only models of this name.")]


def _registry() -> "Registry":
    from imgcls.registry import Registry

    return Registry()


@app.command("list")
def list_models(name: Name = None, json: Json = False) -> None:
    """List the models, newest first; `*` marks the active one.

    ```
    imgcls models list
    imgcls models list pets --json
    ```
    """
    from imgcls.schemas import ListResponse

    registry = _registry()
    listed = ListResponse.of(registry.cards(name), registry.active())
    if json:
        console.show_json(listed)
        return
    if not listed.models:
        console.note("There are no models yet: `imgcls train DATA` makes one.")
        return
    columns = ["", "tag", "recipe", "answers", "metrics", "dataset", "created"]
    console.show(
        console.table(
            columns,
            [
                (
                    "*" if row.active else "",
                    row.tag + (" (baseline)" if row.baseline else ""),
                    row.recipe,
                    _kind(row.labels, row.target, row.output_range),
                    "  ".join(f"{name} {value:.4f}" for name, value in row.metrics.items()),
                    row.dataset,
                    f"{row.created_at.astimezone():%Y-%m-%d %H:%M}",
                )
                for row in listed.models
            ],
        )
    )


@app.command()
def show(tag: Tag, json: Json = False) -> None:
    """Show everything a model says about itself: metrics, settings, lineage.

    ```
    imgcls models show pets
    imgcls models show pets:20261121083000a1b2c3 --json
    ```
    """
    registry = _registry()
    card = registry.get(tag)
    if json:
        console.show_json(card)
    else:
        console.show(_facts(card, active=card.tag == registry.active()), *metric_tables(card))


@app.command()
def report(
    tag: Tag,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the whole report as one page.")
    ] = None,
    json: Json = False,
) -> None:
    """Show how good a model is and how sure that is; with --html, write a page with plots.

    The page holds plots, figures by class, folds and the worst mistakes with their pictures, and
    needs no other file.

    ```
    imgcls models report pets
    imgcls models report pets --html pets.html
    ```
    """
    from imgcls.report import page

    registry = _registry()
    card = registry.get(tag)
    if html is not None:
        written = page(registry.folder(card.tag), card)
        html.write_text(written, encoding="utf-8")
    if json:
        console.show_json({"tag": card.tag, "html": html, "metrics": card.metrics})
    elif html is not None:
        console.show(f"wrote {html}")
    else:
        console.show(*metric_tables(card))


@app.command("set")
def set_active(tag: Tag, json: Json = False) -> None:
    """Make a model the active one, after it has passed its checks.

    It is loaded and must answer its golden images rightly; if it does not, nothing changes.
    Servers that run with the same home follow within a second.

    ```
    imgcls models set pets
    ```
    """
    was, now = activate(tag)
    _say_active(now, was, json)


@app.command()
def rollback(json: Json = False) -> None:
    """Go back to the model that was active before; the same checks apply.

    ```
    imgcls models rollback
    ```
    """
    from imgcls.engine import gate

    registry = _registry()
    was = registry.active()
    tag = registry.before()
    gate(registry.folder(tag))
    registry.step_back(tag)
    _say_active(tag, was, json)


@app.command()
def unset(json: Json = False) -> None:
    """Leave no model active; `imgcls models rollback` brings the last one back.

    ```
    imgcls models unset
    ```
    """
    _say_active(None, _registry().unset(), json)


@app.command()
def remove(
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="[TAG]...", help="The models to delete.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every model that is neither active nor a baseline.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Baselines too (by tag).")] = False,
    json: Json = False,
) -> None:
    """Delete models. The active one is always refused, baselines unless forced.

    ```
    imgcls models remove pets:20261121083000a1b2c3
    imgcls models remove --all
    ```
    """
    from imgcls.schemas import RemoveResponse

    if everything == bool(tags):
        raise typer.BadParameter("Give the tags to delete, or --all.")
    registry = _registry()
    if everything:
        removed = registry.remove_all()
    else:
        # All of them must exist before the first one goes, and `pets` twice is one model.
        found = dict.fromkeys(registry.get(tag).tag for tag in tags or [])
        removed = [registry.remove(tag, force=force) for tag in found]
    if json:
        left = [card.tag for card in registry.cards()]
        console.show_json(RemoveResponse(removed=removed, left=left))
    else:
        console.show(*(f"removed {tag}" for tag in removed))
        if not removed:
            console.note("Nothing to remove.")


@app.command()
def shadow(
    tag: Annotated[
        str, typer.Argument(metavar="[TAG|report]", help="The model; `report` only shows.")
    ] = "report",
    rate: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Share of the answered images it scores.")
    ] = 0.05,
    off: Annotated[bool, typer.Option("--off", help="Stop the shadow.")] = False,
    json: Json = False,
) -> None:
    """Let a model score live traffic in silence, and see where it differs from the active one.

    It must pass the same checks as `set`. Servers with the same home follow within a second, and
    no answer waits for it. Until it is stopped the model cannot be removed.

    ```
    imgcls models shadow pets --rate 0.2
    imgcls models shadow report
    imgcls models shadow --off
    ```
    """
    from imgcls.engine import gate

    registry = _registry()
    if off:
        registry.shadow.stop()
    elif tag != "report":
        registry.start_shadow(gate(registry.folder(tag), threads=1).card.tag, rate)
    report = registry.shadow.report()
    if json:
        console.show_json(report)
    elif report.tag is None:
        console.note("There has been no shadow yet: `imgcls models shadow TAG` starts one.")
    else:
        console.show(*_shadow_tables(report))


@app.command()
def export(
    tag: Tag,
    target: Annotated[
        Path, typer.Argument(metavar="[TARGET]", help="A file (.bentomodel) or a folder.")
    ] = Path("."),
    json: Json = False,
) -> None:
    """Write a model to one file, for another machine.

    ```
    imgcls models export pets
    imgcls models export pets /backup/pets.bentomodel
    ```
    """
    path = _registry().export(tag, target)
    if json:
        console.show_json({"path": str(path)})
    else:
        console.show(f"wrote {path}")
        console.note(f"On the other machine: imgcls models import {path.name}")


@app.command("import")
def import_model(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` wrote.")],
    json: Json = False,
) -> None:
    """Take a model from a file; it must pass the same checks as any other.

    ```
    imgcls models import pets.bentomodel
    ```
    """
    tag = _registry().import_(source)
    if json:
        console.show_json({"tag": tag})
    else:
        console.show(f"imported {tag}")
        console.note(f"To use it: imgcls models set {tag}")


def activate(tag: str) -> tuple[str | None, str]:
    """Gate a model and make it active; the tags before and after."""
    from imgcls.engine import gate

    registry = _registry()
    was = registry.active()
    card = gate(registry.folder(tag)).card
    registry.point(card.tag)
    return was, card.tag


def metric_tables(card: "ModelCard") -> "list[Table | str]":
    """The held-out metrics of a model, in all and by class."""
    from imgcls.card import Metrics
    from imgcls.report import figures

    metrics = card.metrics
    shown: list[Table | str] = [
        f"{card.tag} on {console.plural(metrics.images, 'image')} of the {metrics.split} split",
        console.table(
            ["", "#value", "95% interval"],
            [(name, f"{value:.4f}", interval) for name, value, interval in figures(metrics)],
        ),
    ]
    if card.fold_metrics:
        rows = [(n, f"{mean:.4f}", f"{sd:.4f}") for n, (mean, sd) in card.fold_summary().items()]
        shown.append(f"over {card.folds_told} folds")
        shown.append(console.table(["", "#mean", "#spread"], rows))
    if card.learning_curve:
        names = list(card.learning_curve[0].test)
        shown.append("by training images, on the test images")
        shown.append(
            console.table(
                ["#images", *(f"#{name}" for name in names)],
                [(p.images, *(f"{p.test[n]:.4f}" for n in names)) for p in card.learning_curve],
            )
        )
    if isinstance(metrics, Metrics):
        columns = ["class", "#precision", "#recall", "#F1", "#images"]
        classes = [
            (m.label, f"{m.precision:.3f}", f"{m.recall:.3f}", f"{m.f1:.3f}", f"{m.support:,}")
            for m in metrics.per_class
        ]
        shown.append(console.table(columns, classes))
    return shown


def _shadow_tables(report: "ShadowReport") -> "list[Table | str]":
    """The counts of a shadow, and its newest disagreements."""
    counts = ["#scored", "#agreed", "#disagreed", "#failed", "#dropped"]
    row = (report.scored, report.agreed, report.disagreed, report.failed, report.dropped)
    verb = "shadows" if report.running else "shadowed"
    shown: list[Table | str] = [
        f"{report.tag} {verb} {report.rate:.2%} of the answered images",
        console.table(counts, [tuple(f"{count:,}" for count in row)]),
    ]
    if report.difference:
        average = report.difference / report.scored
        shown.append(f"The scores differ by {average:.4g} on average.")
    if report.disagreements:
        rows = [
            (
                f"{one.time.astimezone():%Y-%m-%d %H:%M:%S}",
                _said(one.active),
                _said(one.shadow),
                one.image,
            )
            for one in report.disagreements[:20]
        ]
        shown.append(console.table(["time", "active", "shadow", "image"], rows))
    return shown


def _said(opinion: "Opinion") -> str:
    if opinion.score is not None:
        told = f"{opinion.score:.7g}"
        if opinion.interval is not None:
            low, high = opinion.interval
            told += f" ({low:.4g} to {high:.4g})"
        return told
    abstained = " (abstained)" if opinion.abstained else ""
    return f"{opinion.label} {opinion.probability:.3f}{abstained}"


def _kind(labels: list[str], target: str | None, output_range: tuple[float, float] | None) -> str:
    """What a model answers with, in a few words."""
    if labels:
        return f"{len(labels):,} classes"
    span = "" if output_range is None else f", {output_range[0]:g} to {output_range[1]:g}"
    return (target or "a score") + span


def _facts(card: "ModelCard", *, active: bool) -> "Table":
    size = card.preprocessing
    answers: list[tuple[str, object]]
    if card.task == "regression":
        interval = card.interval
        answers = [
            ("target", _kind([], card.target, card.output_range)),
            (
                "interval",
                f"+-{interval.half_width:.4g}, holds {interval.coverage:.0%}" if interval else "-",
            ),
        ]
    else:
        answers = [
            ("classes", f"{len(card.labels)}: {', '.join(card.labels)}"),
            ("threshold", "-" if card.threshold is None else card.threshold),
            ("abstains", "-" if card.abstain_below is None else f"below {card.abstain_below:.4g}"),
            ("temperature", f"{card.temperature:.4g}"),
        ]
    facts: list[tuple[str, object]] = [
        ("tag", card.tag + (" (active)" if active else "")),
        ("protected", "yes, a baseline" if card.baseline else "no"),
        ("task", card.task),
        *answers,
        ("input", f"{size.width} x {size.height}, {size.resize}"),
        ("embedding", card.embedding_dim),
        ("recipe", card.recipe_name),
        ("backbone", card.backbone or "-"),
        ("settings", ", ".join(f"{k}={v}" for k, v in card.hyperparameters.items())),
        ("dataset", f"{card.dataset.tag}, {card.dataset.images:,} images"),
        ("splits", ", ".join(f"{k} {v:,}" for k, v in card.dataset.splits.items())),
        ("parity", f"{card.parity:.2g}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in card.versions.items())),
        ("created", f"{card.created_at.astimezone():%Y-%m-%d %H:%M}"),
        ("duration", console.span(card.duration_seconds)),
    ]
    return console.facts(facts)


def _say_active(now: str | None, was: str | None, json: bool) -> None:
    from imgcls.schemas import ActiveResponse

    if json:
        console.show_json(ActiveResponse(active=now, previous=was))
        return
    console.show(f"active: {now or 'none'}")
    if was != now:
        console.note(f"before: {was or 'none'}")
