"""The console script `hermes2`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from deploy.launcher import documents, models, reference, serve
from deploy.launcher.api import Api
from deploy.launcher.family import die_with_parent
from deploy.launcher.problem import Problem
from frontend import settings as settings_module
from frontend.settings import SettingsError


@click.group()
def hermes2() -> None:
    """The Hermes-2 service: a conversational model behind the OpenAI API."""


@hermes2.command("serve")
@click.option("--with-parent", is_flag=True, help="End when the process that started this one ends.")
def serve_command(with_parent: bool) -> None:
    """Start Valkey, Triton with vLLM, and the API, and keep them running until Ctrl-C."""
    if with_parent:
        die_with_parent(os.getppid(), signal.SIGTERM)
    serve.serve(settings_module.load())


@hermes2.group("model")
def model_group() -> None:
    """The model that answers."""


@model_group.command("prepare")
def prepare_command() -> None:
    """Make the model of HERMES2_MODEL ready to load, and print its folder."""
    settings = settings_module.load()
    folder = models.prepare(settings.model, settings.models_dir, settings.engine.environment, click.echo)
    click.echo(folder)


@hermes2.group("keys")
def keys_group() -> None:
    """API keys, each of one tenant."""


@keys_group.command("create")
@click.option("--tenant", required=True, help="Whose key: only keys of the same tenant see what is kept with it.")
@click.option("--name", default="", help="What the key is for.")
@click.option("--profile", help="The conversation profile of its requests, where they name none.")
def create_key_command(tenant: str, name: str, profile: str | None) -> None:
    """Make an API key, and print it, once: it cannot be shown again. The service may run meanwhile."""
    from deploy.launcher import keys  # half a second of imports that no other command needs

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is the key's
    settings = settings_module.load()
    key = asyncio.run(keys.create(settings, tenant, name, profile))
    click.echo(f"A key of tenant {tenant!r}. Keep it now: it is stored nowhere, and cannot be shown again.", err=True)
    click.echo(key)


def address(command: Callable[..., None]) -> Callable[..., None]:
    """Of the service, and the key that it is asked with."""
    url = click.option("--url", help="Of the service; by default that of this machine's settings.")
    key = click.option(
        "--key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A file with an API key; by default that of this machine's settings.",
    )
    return url(key(command))


def opened(url: str | None, key_file: Path | None) -> Api:
    """A key from this machine's settings goes to this machine alone."""
    settings = settings_module.load()
    if url is not None and key_file is None:
        raise Problem("with --url, please name the file of the key too: --key-file")
    key = key_file.read_text().strip() if key_file else runtime_api_key(settings)
    return Api(url or f"http://{settings.host}:{settings.port}", key)


def runtime_api_key(settings: settings_module.Settings) -> str:
    if settings.api_key is None and not settings.api_key_file.exists():
        raise Problem(
            f"there is no key in {settings.api_key_file}: name one with --key-file, or start the service first"
        )
    return settings.api_key or settings.api_key_file.read_text().strip()


@hermes2.command("ingest")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--store", required=True, help="Name or id (vs_...) of the vector store; one with this name is made.")
@address
def ingest_command(paths: tuple[Path, ...], store: str, url: str | None, key_file: Path | None) -> None:
    """Put files, and all files of folders, into a vector store of the running service, and wait until they can be found.

    Ends with status 1, and says why, if some could not be read.
    """
    failed = documents.ingest(opened(url, key_file), paths, store, documents.tell_progress)
    for each in failed:
        click.echo(f"{each.path}: {each.reason}", err=True)
    if failed:
        raise Problem(f"{len(failed)} files are not in the store")


@hermes2.command("search")
@click.argument("store")
@click.argument("query")
@click.option("--results", default=5, show_default=True, type=click.IntRange(1, 50), help="How many passages.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as the API gives them.")
@address
def search_command(store: str, query: str, results: int, as_json: bool, url: str | None, key_file: Path | None) -> None:
    """Print the passages of a vector store (name or id) that fit QUERY best."""
    for passage in documents.search(opened(url, key_file), store, query, results):
        click.echo(json.dumps(passage, ensure_ascii=False) if as_json else documents.shown(passage))


@hermes2.command("settings")
def settings_command() -> None:
    """Print every setting with its variable, default and meaning (Markdown)."""
    click.echo(reference.page(), nl=False)


def main() -> None:
    try:
        hermes2()
    except (Problem, SettingsError) as exc:
        print(f"hermes2: {exc}", file=sys.stderr)
        raise SystemExit(1) from None
