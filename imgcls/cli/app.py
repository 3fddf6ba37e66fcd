"""The root command: what there is, and what becomes of errors."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from imgcls import console
from imgcls.cli import data, fix, jobs, models
from imgcls.cli.compare import compare
from imgcls.cli.crop import crop
from imgcls.cli.demo import demo
from imgcls.cli.eda import eda
from imgcls.cli.predict import predict
from imgcls.cli.search import leaderboard, search
from imgcls.cli.serve import serve
from imgcls.cli.train import recipes, train
from imgcls.errors import ImgclsError


class Commands(TyperGroup):
    """Turns every refusal into one line and an exit code; a traceback is always a bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.note("stopped")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            console.drop_output()
            raise typer.Exit(0) from None
        except (ImgclsError, OSError, MemoryError) as err:
            console.fail(err)
            raise typer.Exit(1) from None
        except ValueError as err:
            if type(err).__name__ != "ValidationError" or getattr(err, "title", "") != "Settings":
                raise
            console.fail(_bad_setting(err))
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands,
    name="imgcls",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("eda")(eda)
app.command("crop")(crop)
app.command("train")(train)
app.command("search")(search)
app.command("leaderboard")(leaderboard)
app.command("recipes")(recipes)
app.command("predict")(predict)
app.command("serve")(serve)
data.app.command("findings")(fix.findings)
data.app.command("mislabelled")(fix.mislabelled)
data.app.command("fix")(fix.fix)
app.add_typer(data.app, name="data")
models.app.command("compare")(compare)
app.add_typer(models.app, name="models")
app.add_typer(jobs.app, name="jobs")


def _version(asked: bool) -> None:
    if asked:
        from imgcls import __version__

        console.show(f"imgcls {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """From a folder of labelled images to a trained, served model.

    Start with `imgcls demo`, or with your own images, a folder a class:

    ```
    imgcls eda photos.zip
    imgcls train photos.zip --name photos --activate
    imgcls predict new/*.jpg --out answers.csv
    imgcls serve
    ```

    Every command takes `--json`. Settings are environment variables: IMGCLS_HOME (data and
    jobs), BENTOML_HOME (models).
    """


def _bad_setting(err: Any) -> ImgclsError:
    faults = [
        f"IMGCLS_{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
        for fault in err.errors(include_url=False)
    ]
    return ImgclsError("A setting cannot be used: " + "; ".join(faults))
