"""The console script `hermes2`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from deploy.launcher import documents, models, profiles, reference, serve, tls
from deploy.launcher.api import Api
from deploy.launcher.family import die_with_parent
from deploy.launcher.key_commands import keys_group
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
    settings = profiles.applied(settings_module.load(), click.echo)
    engine = settings.engine
    folder = models.prepare(settings.model, settings.models_dir, engine.environment, click.echo, engine.weights)
    click.echo(folder)


def address(command: Callable[..., None]) -> Callable[..., None]:
    """Of the service, and the key that it is asked with."""
    url = click.option("--url", help="Of the service; by default that of this machine's settings.")
    key = click.option(
        "--key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A file with an API key; by default that of this machine's settings.",
    )
    authority = click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Certificates (PEM) that may vouch for --url; by default those of this machine.",
    )
    return url(key(authority(command)))


def opened(url: str | None, key_file: Path | None, ca_file: Path | None) -> Api:
    """A key from this machine's settings goes to this machine alone, which is known by its certificate."""
    settings = settings_module.load()
    if url is not None and key_file is None:
        raise Problem("with --url, please name the file of the key too: --key-file")
    key = key_file.read_text().strip() if key_file else runtime_api_key(settings)
    own = settings.http.tls_certificate if url is None else None
    trust = tls.of_authority(ca_file) if ca_file else tls.trusting(own) if own else None
    return Api(url or tls.url(settings, tls.own_host(settings)), key, trust)


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
def ingest_command(
    paths: tuple[Path, ...], store: str, url: str | None, key_file: Path | None, ca_file: Path | None
) -> None:
    """Put files, and all files of folders, into a vector store of the running service, and wait until they can be found.

    Ends with status 1, and says why, if some could not be read.
    """
    failed = documents.ingest(opened(url, key_file, ca_file), paths, store, documents.tell_progress)
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
def search_command(
    store: str, query: str, results: int, as_json: bool, url: str | None, key_file: Path | None, ca_file: Path | None
) -> None:
    """Print the passages of a vector store (name or id) that fit QUERY best."""
    for passage in documents.search(opened(url, key_file, ca_file), store, query, results):
        click.echo(json.dumps(passage, ensure_ascii=False) if as_json else documents.shown(passage))


@hermes2.command("settings")
def settings_command() -> None:
    """Print every setting with its variable, default and meaning (Markdown)."""
    click.echo(reference.page(), nl=False)


hermes2.add_command(keys_group)


def main() -> None:
    try:
        hermes2()
    except (Problem, SettingsError) as exc:
        print(f"hermes2: {exc}", file=sys.stderr)
        raise SystemExit(1) from None
