"""The console script `hermes2`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import click
import structlog

from deploy.launcher import models, reference, serve
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
