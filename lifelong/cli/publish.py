"""The commands that publish a run: its model card, and its copy on the Hub."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lifelong.cli import tables
from lifelong.cli.commands import RUN, JsonFlag, app, own_process, run_flag, show
from lifelong.cli.flags import ONE
from lifelong.cli.use import RunArgument

LicenseFlag = Annotated[
    str | None, run_flag("licence of the model, as the Hub abbreviates it: apache-2.0, mit, cc-by-4.0, ... [default: none is named]"), ONE
]


@app.command(usage="Usage: lifelong push RUN hub:OWNER/NAME [FLAGS]")
def push(
    run: RunArgument,
    to: Annotated[str, Parameter(help="where on the Hugging Face Hub: hub:OWNER/NAME, made if it does not exist")],
    /,
    *,
    public: Annotated[bool, Parameter(group=RUN, help="let everybody see it, not only its owner", negative="", show_default=False)] = False,
    license: LicenseFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Upload a copy of a run to the Hugging Face Hub, with a model card: no images, no paths of this machine. Private by default."""
    from lifelong.publishing import push as upload

    own_process()
    show(upload(run, to, public=public, license=license), as_json, tables.print_pushed)


@app.command(usage="Usage: lifelong card RUN [FLAGS]")
def card(
    run: RunArgument,
    /,
    *,
    name: Annotated[str | None, run_flag("name of the model [default: that of the folder]"), ONE] = None,
    license: LicenseFlag = None,
    out: Annotated[Path | None, run_flag("file to write it to [default: it is printed]"), ONE] = None,
) -> None:
    """Write the model card of a run: what was learned, on what, how well, how to use it, and its limits."""
    from lifelong.publishing import model_card
    from lifelong.storage import write_text

    text = model_card(run, license=license, name=name)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
