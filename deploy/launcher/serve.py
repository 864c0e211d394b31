"""`hermes2 serve`: the family of this machine, from the first check to the last child."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.launcher import budget, embedder, models, preflight, profiles, tls
from deploy.launcher.family import become_subreaper, kill_orphans
from deploy.launcher.frontend import FrontendService
from deploy.launcher.supervisor import Supervisor
from deploy.launcher.triton import TritonService
from deploy.launcher.valkey import ValkeyService
from frontend import settings as settings_module
from frontend.domain import model_card
from frontend.http import cors
from frontend.http.proxies import Proxies
from frontend.runtime import load_profiles
from frontend.settings import Settings

ORPHAN_POLL_S = 0.5
COLOURS = {"valkey": "35", "triton": "36", "frontend": "32"}


def serve(settings: Settings) -> None:
    """Runs until SIGINT or SIGTERM. Raises Problem for what keeps it from starting."""
    for name in settings_module.unknown_variables():
        say(f"warning: {name} is not a setting of this service")
    cors.config(settings.http.cors_origins)
    Proxies(settings.http.trusted_proxies)
    for warning in tls.check(settings):
        say(f"warning: {warning}")
    with preflight.only_launcher(settings.home, say):
        preflight.check_disk(settings.home)
        preflight.check_ports(settings)
        load_profiles(settings)
        key = preflight.ensure_api_key(settings)
        settings = profiles.applied(settings, say)
        engine = settings.engine
        folder = models.prepare(settings.model, settings.models_dir, engine.environment, say, engine.weights)
        card = model_card.read(folder)
        embedder_folder = embedder.folder(settings)
        plan = budget.plan(settings, card)
        say("memory budget:")
        for row in plan.table():
            say(f"  {row}")
        say(
            f"  KV cache for {plan.kv_cache_tokens} tokens, context {plan.max_model_len} tokens, {plan.cpus} CPU core(s)"
        )
        socket = preflight.valkey_socket(settings.home)
        family = [
            Supervisor(ValkeyService(settings, socket), print_line),
            Supervisor(TritonService(settings, card, folder, plan, embedder_folder), print_line),
            Supervisor(FrontendService(settings, folder, f"unix://{socket}", embedder_folder), print_line),
        ]
        asyncio.run(run(family, announcement(settings, card.id, key)))


def announcement(settings: Settings, model: str, new_key: str | None) -> list[str]:
    lines = [f"ready: {model} (alias hermes-2) answers on {tls.url(settings, settings.host)}/v1"]
    if new_key:
        lines.append(f"API key, shown this once and kept in {settings.api_key_file}: {new_key}")
    elif settings.api_key is None:
        lines.append(f"API key: in {settings.api_key_file}")
    return lines


async def run(family: list[Supervisor], announcement: list[str]) -> None:
    """Starts the family in order, keeps it, and ends it in the opposite order."""
    become_subreaper()
    stop, hurry = asyncio.Event(), asyncio.Event()
    with signals(stop, hurry):
        reaper = asyncio.create_task(reap())
        try:
            if await start(family, stop):
                for line in announcement:
                    say(line)
                keepers = [asyncio.create_task(supervisor.keep()) for supervisor in family]
                await stop.wait()
                say("stopping: open requests may finish")
                await end(family, hurry)
                for keeper in keepers:
                    keeper.cancel()
        finally:
            for supervisor in family:
                await supervisor.kill()
            reaper.cancel()
            kill_orphans()
    say("stopped")


async def start(family: list[Supervisor], stop: asyncio.Event) -> bool:
    """True when all are ready; False if told to stop on the way. Raises Problem."""
    stopped = asyncio.create_task(stop.wait())
    try:
        for supervisor in family:
            starting = asyncio.create_task(supervisor.start())
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                return False
            starting.result()
        return True
    finally:
        stopped.cancel()


async def end(family: list[Supervisor], hurry: asyncio.Event) -> None:
    """The frontend first, while the engine still answers; a second signal ends the patience."""

    async def in_order() -> None:
        for supervisor in reversed(family):
            await supervisor.stop()

    ending, hurried = asyncio.create_task(in_order()), asyncio.create_task(hurry.wait())
    await asyncio.wait([ending, hurried], return_when=asyncio.FIRST_COMPLETED)
    for task in (ending, hurried):
        task.cancel()


async def reap() -> None:
    """Orphans come to the launcher; each belongs to a family that has lost its head."""
    while True:
        await asyncio.sleep(ORPHAN_POLL_S)
        for pid in kill_orphans():
            say(f"ended the orphan {pid}")


@contextlib.contextmanager
def signals(stop: asyncio.Event, hurry: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


def say(line: str) -> None:
    print_line("hermes2", line)


def print_line(name: str, line: str) -> None:
    """One line, under its family's name; a closed terminal does not end the service."""
    label = f"{name:<8} |"
    if sys.stdout.isatty() and name in COLOURS:
        label = f"\033[{COLOURS[name]}m{label}\033[0m"
    try:
        print(f"{label} {line}", flush=True)
    except OSError:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # it stays open for the life of the process
