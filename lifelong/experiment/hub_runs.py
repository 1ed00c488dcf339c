"""Runs on the Hugging Face Hub: download one, only if that is allowed, and check it; or push one.

The Hub's library finds the token where it always does (its login, HF_TOKEN); it is never asked for, passed on or shown here.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lifelong.errors import LifelongError
from lifelong.experiment.published import FILES, MANIFEST, check_manifest
from lifelong.extras import require_extra

PREFIX = "hub:"

SECONDS = 10.0
"""How long the Hub may take to say that a run is there."""

OWN = ("README.md", "LICENSE", "LICENSE.md", ".gitattributes", MANIFEST, *FILES)
"""What may be in a repository that a run is pushed to."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")


class HubRun(NamedTuple):
    """Where a run is on the Hub.

    Attributes:
        id: OWNER/NAME.
        revision: a branch, tag or commit; None: the main branch.
    """

    id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.id}" + (f"@{self.revision}" if self.revision else "")


def hub_run(name: object) -> HubRun | None:
    """Return where the run of a name like "hub:OWNER/NAME" or "hub:OWNER/NAME@REVISION" is; None for a path.

    Raises:
        LifelongError: what follows the colon is no id.
    """
    text = str(name)
    if not text.startswith(PREFIX):
        return None
    place, at, revision = text.removeprefix(PREFIX).partition("@")
    if not _ID.fullmatch(place) or ".." in text or (at and not _REVISION.fullmatch(revision)):
        raise LifelongError(f"'{text}' is not a run on the Hub; write hub:OWNER/NAME, or hub:OWNER/NAME@REVISION")
    return HubRun(place, revision or None)


def fetch_run(place: HubRun, *, download: bool) -> Path:
    """Return the folder of a run of the Hub, in the cache of the Hub's library, with every file checked by its digest.

    Args:
        place: of the run.
        download: whether the Hub may be asked; otherwise only an earlier copy is used.

    Raises:
        LifelongError: there is no copy and no download is allowed, the Hub cannot be reached or does not have it, it is not a run, or it is
            damaged.
    """
    require_extra("hub", ("huggingface_hub",), f"{place}", "or give a run directory")
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = [MANIFEST, *FILES]
    if not download:
        try:
            folder = huggingface_hub.snapshot_download(place.id, revision=place.revision, allow_patterns=patterns, local_files_only=True)
        except LocalEntryNotFoundError as error:
            raise LifelongError(f"{place} is not in the cache of the Hub; allow the download with --download (download=True)") from error
    else:
        with answers(f"cannot download {place}"):
            # First, since it fails at once if the Hub is out of reach; the download would retry for half a minute.
            info = huggingface_hub.HfApi().model_info(place.id, revision=place.revision, timeout=SECONDS)
            if MANIFEST not in [file.rfilename for file in info.siblings or ()]:
                raise LifelongError(f"{place} is not a run of lifelong: it has no {MANIFEST}")
            folder = huggingface_hub.snapshot_download(place.id, revision=info.sha or place.revision, allow_patterns=patterns)
    check_manifest(Path(folder), str(place))
    return Path(folder)


def push_folder(folder: Path, place: HubRun, *, public: bool, message: str) -> str:
    """Upload a folder as a model repository, and return the address of the commit.

    The files of an earlier push are replaced.

    Args:
        folder: a published run, with the list of its files and its card.
        place: the repository; made if it does not exist.
        public: whether everybody may see it.
        message: of the commit.

    Raises:
        LifelongError: the repository holds something else, or is public and `public` was not given, or the Hub refuses.
    """
    if place.revision is not None:
        raise LifelongError(f"{place}: a run is pushed to the main branch; leave out @{place.revision}")
    require_extra("hub", ("huggingface_hub",), f"pushing to {place}", "or copy the run directory")
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    api = huggingface_hub.HfApi()
    with answers(f"cannot push to {place}"):
        try:
            there = api.model_info(place.id, timeout=SECONDS)
        except RepositoryNotFoundError:
            there = None
        if there is None:
            api.create_repo(place.id, repo_type="model", private=not public)
        else:
            if not there.private and not public:
                raise LifelongError(f"{place} exists and everybody can see it; push with --public (public=True), or to another id")
            others = [file.rfilename for file in there.siblings or () if not _own(file.rfilename)]
            if others:
                raise LifelongError(f"{place} holds other files ('{others[0]}'); push to a repository of its own")
        made = api.upload_folder(
            repo_id=place.id, repo_type="model", folder_path=folder, commit_message=message, delete_patterns=[MANIFEST, *FILES]
        )
    return str(made.commit_url)


def _own(path: str) -> bool:
    return path in OWN or path.startswith("checkpoint/")


@contextmanager
def answers(what: str) -> Generator[None]:
    """Say in one line why the Hub did not do something.

    Args:
        what: the start of the line.
    """
    try:
        yield
    except LifelongError:
        raise
    except Exception as error:  # of the network, the disk or the Hub; their types change with the Hub's library
        line = (str(error).strip() or "no answer").splitlines()[0]
        # No message should hold a token; if one does, it goes no further.
        line = re.sub(r"hf_\w+", "hf_...", line)[:300]
        raise LifelongError(f"{what} ({type(error).__name__}: {line}); check the network, the id and your login (hf auth login)") from error
