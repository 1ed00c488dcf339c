"""The command that serves a run."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lifelong.cli.commands import Where, WhereFlags, app, own_process, run_flag
from lifelong.cli.flags import LIST, ONE
from lifelong.cli.use import RunArgument
from lifelong.errors import LifelongError, one_line

WHERE = Where()


@app.command(usage="Usage: lifelong serve RUN [FLAGS]")
def serve(
    run: RunArgument,
    /,
    *,
    host: Annotated[str, run_flag("address to listen at; any other than this machine's own needs a token"), ONE] = "127.0.0.1",
    port: Annotated[int, run_flag("port to listen at; 0: any that is free"), ONE] = 8000,
    token_file: Annotated[
        Path | None, run_flag("file with the token that clients must send [default: $LIFELONG_SERVE_TOKEN, else none]"), ONE
    ] = None,
    allow_host: Annotated[
        list[str] | None, run_flag("further names under which clients reach the server, separated by commas"), LIST
    ] = None,
    rate: Annotated[float, run_flag("requests a second from one address; 0: any number"), ONE] = 100.0,
    read_only: Annotated[bool, run_flag("only predict: nothing can be learned"), Parameter(negative="", show_default=False)] = False,
    where: WhereFlags = WHERE,
) -> None:
    """Serve a run: a page in the browser and a JSON API to predict, and to learn one more task from uploaded images."""
    from lifelong.extras import require_extra

    packages = ("starlette", "uvicorn", "python_multipart")
    require_extra("serve", packages, "lifelong serve", "or use the run with: lifelong predict")
    from lifelong.serving.entrance import Entrance, read_token
    from lifelong.serving.limits import Limits
    from lifelong.serving.server import serve as serve_run

    if not 0 <= port < 65536:
        raise LifelongError(f"--port {port}: give an integer from 0 to 65535")
    if not 0 <= rate < 1e9:
        raise LifelongError(f"--rate {rate}: give a number of requests a second, or 0 for any number")
    entrance = Entrance(host, read_token(token_file), allow_host or ())
    own_process()
    limits = Limits(rate=rate, burst=max(int(2 * rate), 1))
    serve_run(run, where.environment(), entrance, host, port, limits, read_only, _tell)


def _tell(line: str) -> None:
    print("\n".join(map(one_line, line.splitlines())), file=sys.stderr, flush=True)
