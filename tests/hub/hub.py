"""A Hugging Face Hub in a folder: what the library asks of `huggingface_hub`, without a network."""

import fnmatch
import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors


@dataclass
class FakeHub:
    """Repositories in a folder, a folder for each of their commits, and a cache like the real library's, whose files are links.

    Attributes:
        asked: every call that would need the network.
    """

    root: Path
    asked: list[str] = field(default_factory=list)
    private: dict[str, bool] = field(default_factory=dict)
    commits: dict[str, list[str]] = field(default_factory=dict)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def files(self, repo_id: str) -> dict[str, Path]:
        """The files of the last commit."""
        if not self.commits.get(repo_id):
            return {}
        folder = self.root / repo_id / self.commits[repo_id][-1]
        return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}

    def model_info(self, repo_id: str, *, revision: str | None = None, timeout: float | None = None) -> Any:
        self.asked.append(f"info {repo_id}")
        if repo_id not in self.private:
            error = errors.RepositoryNotFoundError.__new__(errors.RepositoryNotFoundError)
            error.args = (f"401 Client Error: Repository Not Found for {repo_id}",)
            raise error
        names = [SimpleNamespace(rfilename=name) for name in self.files(repo_id)]
        commits = self.commits.get(repo_id) or [""]
        sha = revision if revision in commits else commits[-1]
        return SimpleNamespace(private=self.private[repo_id], siblings=names, sha=sha or None)

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool) -> None:
        assert repo_type == "model"
        assert repo_id not in self.private
        self.asked.append(f"create {repo_id}")
        self.private[repo_id] = private

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, commit_message: str, delete_patterns: list[str]) -> Any:
        assert repo_type == "model"
        self.asked.append(f"upload {repo_id}: {commit_message}")
        before = {name: path.read_bytes() for name, path in self.files(repo_id).items()}
        kept = {name: text for name, text in before.items() if not any(fnmatch.fnmatch(name, pattern) for pattern in delete_patterns)}
        new = {path.relative_to(folder_path).as_posix(): path.read_bytes() for path in folder_path.rglob("*") if path.is_file()}
        sha = hashlib.sha1(repr(sorted((kept | new).items())).encode()).hexdigest()
        for name, content in (kept | new).items():
            place = self.root / repo_id / sha / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        self.commits.setdefault(repo_id, []).append(sha)
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/{sha}")

    def snapshot_download(
        self, repo_id: str, *, revision: str | None = None, allow_patterns: list[str], local_files_only: bool = False
    ) -> str:
        cache = self.root / "cache" / repo_id
        commits = self.commits.get(repo_id, [])
        if local_files_only:
            there = sorted(cache.glob("*"), key=lambda path: commits.index(path.name))
            found = [path for path in there if revision in (None, path.name)]
            if not found:
                raise errors.LocalEntryNotFoundError("no such snapshot")
            return str(found[-1])
        self.asked.append(f"download {repo_id}")
        sha = revision if revision in commits else commits[-1]
        folder = self.root / repo_id / sha
        shutil.rmtree(cache / sha, ignore_errors=True)
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                place = cache / sha / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path)
        return str(cache / sha)
