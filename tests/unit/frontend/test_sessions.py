"""/v1/sessions over a real database: handles that end by themselves, and that lead nobody anywhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from frontend.domain.conversations import Session
from frontend.domain.errors import NotFound
from frontend.domain.storage import Database
from frontend.settings import ConversationSettings
from tests.support.compatibility import OF_SESSIONS
from tests.support.conversations import OURS, START, THEIRS, Api, api_for, error, told

PATH = "/v1/sessions"
HELLO = {"role": "user", "content": "Hello"}
DEFAULTS = ConversationSettings()


@pytest.fixture
async def api(sqlite_database: Database, smollm2: Path) -> AsyncIterator[Api]:
    async with api_for(sqlite_database, smollm2) as api:
        yield api


async def make(api: Api, **body: object) -> dict[str, Any]:
    response = await api.ours.post(PATH, json=body)
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


async def resolved(api: Api, session_id: str, tenant: str = OURS) -> Session:
    return await api.sessions.resolve(tenant, session_id, api.clock.now)


class TestCreation:
    @pytest.mark.compat(OF_SESSIONS, "create, get, delete", says="ours: OpenAI has none")
    async def test_a_life(self, api: Api) -> None:
        """A session comes with a conversation of its own, says when it ends, and leaves the conversation when it goes."""
        made = await make(api, metadata={"who": "me"})
        conversation_id = made["conversation"]["id"]
        assert made == {
            "id": made["id"],
            "object": "session",
            "conversation": {"id": conversation_id},
            "created_at": START,
            "last_used_at": START,
            "expires_at": START + DEFAULTS.session_idle_s,
            "idle_timeout_s": DEFAULTS.session_idle_s,
            "lifetime_s": DEFAULTS.session_lifetime_s,
            "metadata": {"who": "me"},
        }
        assert made["id"].startswith("sess_")
        assert len(made["id"]) == len("sess_") + 32
        assert (await api.ours.get(f"{PATH}/{made['id']}")).json() == made
        deleted = (await api.ours.delete(f"{PATH}/{made['id']}")).json()
        assert deleted == {"id": made["id"], "object": "session.deleted", "deleted": True}
        assert (await api.ours.get(f"{PATH}/{made['id']}")).status_code == 404
        assert (await api.ours.get(f"/v1/conversations/{conversation_id}")).status_code == 200

    async def test_a_new_conversation_as_it_is_wanted(self, api: Api) -> None:
        """Items, profile and switches are those of the new conversation."""
        made = await make(api, items=[HELLO], profile="concise", context={"memory": False})
        path = f"/v1/conversations/{made['conversation']['id']}"
        conversation = (await api.ours.get(path)).json()
        assert (conversation["profile"], conversation["context"]["memory"]) == ("concise", False)
        assert len((await api.ours.get(f"{path}/items")).json()["data"]) == 1

    @pytest.mark.parametrize("as_object", [True, False])
    async def test_a_conversation_that_is_there(self, api: Api, as_object: bool) -> None:
        """By its id, bare or in an object; several sessions may lead to one conversation."""
        conversation_id = (await api.ours.post("/v1/conversations", json={})).json()["id"]
        reference = {"id": conversation_id} if as_object else conversation_id
        first, second = [await make(api, conversation=reference) for _ in range(2)]
        assert first["conversation"] == second["conversation"] == {"id": conversation_id}
        assert first["id"] != second["id"]

    @pytest.mark.parametrize(
        ("body", "code", "param"),
        [
            ({"id": "sess_mine"}, "unknown_parameter", "id"),
            ({"session_id": "sess_mine"}, "unknown_parameter", "session_id"),
            ({"idle_timeout_s": 0}, "invalid_value", "idle_timeout_s"),
            ({"idle_timeout_s": DEFAULTS.session_idle_s + 1}, "invalid_value", "idle_timeout_s"),
            ({"lifetime_s": 0}, "invalid_value", "lifetime_s"),
            ({"lifetime_s": DEFAULTS.session_lifetime_s + 1}, "invalid_value", "lifetime_s"),
            ({"lifetime_s": 1.5}, "invalid_value", "lifetime_s"),
            ({"metadata": {"k": 1}}, "invalid_value", "metadata"),
            ({"profile": "nobody"}, "invalid_value", "profile"),
            ({"items": [HELLO] * 21}, "invalid_value", "items"),
            ({"conversation": {"id": "conv_0", "items": []}}, "unknown_parameter", "conversation.items"),
            ({"conversation": "conv_0", "items": []}, "invalid_value", "items"),
            ({"conversation": "conv_0", "profile": "concise"}, "invalid_value", "profile"),
            ({"conversation": "conv_0", "context": {}}, "invalid_value", "context"),
        ],
    )
    async def test_wrong_bodies(self, api: Api, body: dict[str, Any], code: str, param: str) -> None:
        """400 that names what is wrong, a name of the client's choice above all; nothing is made."""
        assert error(await api.ours.post(PATH, json=body)) == (400, code, param)
        assert (await api.ours.get("/v1/conversations")).json()["data"] == []

    async def test_another_tenants_conversation(self, api: Api) -> None:
        """Is answered in the same bytes as one that is not there."""
        conversation_id = (await api.ours.post("/v1/conversations", json={})).json()["id"]
        foreign = await api.theirs.post(PATH, json={"conversation": conversation_id})
        await api.ours.delete(f"/v1/conversations/{conversation_id}")
        assert error(foreign) == (404, "not_found", "conversation")
        assert told(foreign) == told(await api.theirs.post(PATH, json={"conversation": conversation_id}))

    async def test_quota(self, sqlite_database: Database, smollm2: Path) -> None:
        """Of one tenant so many, and no conversation is left by the one too many; others have their own."""
        async with api_for(sqlite_database, smollm2, sessions_per_tenant=2) as api:
            made = [await make(api) for _ in range(2)]
            assert error(await api.ours.post(PATH, json={})) == (400, "quota_exceeded", None)
            assert len((await api.ours.get("/v1/conversations")).json()["data"]) == 2
            assert (await api.theirs.post(PATH, json={})).status_code == 200
            await api.ours.delete(f"{PATH}/{made[0]['id']}")
            await make(api)


class TestTheEnd:
    @pytest.mark.compat(OF_SESSIONS, "idle and absolute expiry", says="ours")
    async def test_an_idle_one(self, api: Api) -> None:
        """It lives as long as it is used, and no second longer than its idle timeout after that."""
        made = await make(api, idle_timeout_s=100)
        for _ in range(3):
            api.clock.now += 99
            session = await resolved(api, made["id"])
        assert session.last_used_at == api.clock.now
        shown = (await api.ours.get(f"{PATH}/{made['id']}")).json()
        assert (shown["last_used_at"], shown["expires_at"]) == (api.clock.now, api.clock.now + 100)
        api.clock.now += 100
        with pytest.raises(NotFound):
            await resolved(api, made["id"])

    async def test_a_busy_one(self, api: Api) -> None:
        """However much it is used, its lifetime is the end."""
        made = await make(api, idle_timeout_s=100, lifetime_s=250)
        for _ in range(4):
            api.clock.now += 60
            await resolved(api, made["id"])
        assert (await api.ours.get(f"{PATH}/{made['id']}")).json()["expires_at"] == START + 250
        api.clock.now += 10
        with pytest.raises(NotFound):
            await resolved(api, made["id"])

    async def test_a_look_is_no_use(self, api: Api) -> None:
        """Who only looks at a session does not keep it alive."""
        made = await make(api, idle_timeout_s=100)
        for _ in range(2):
            api.clock.now += 50
            response = await api.ours.get(f"{PATH}/{made['id']}")
        assert response.status_code == 404

    @pytest.mark.parametrize(("idle_timeout_s", "after_s"), [(3600, 60), (100, 25)])
    async def test_uses_are_written_now_and_then(self, api: Api, idle_timeout_s: int, after_s: int) -> None:
        """Once a minute, or in a quarter of the idle timeout: a busy session is not a write per turn."""
        made = await make(api, idle_timeout_s=idle_timeout_s)
        api.clock.now += after_s - 1
        assert (await resolved(api, made["id"])).last_used_at == START
        api.clock.now += 1
        assert (await resolved(api, made["id"])).last_used_at == START + after_s
        assert (await api.ours.get(f"{PATH}/{made['id']}")).json()["last_used_at"] == START + after_s

    async def test_all_that_is_not_there_is_told_alike(self, api: Api) -> None:
        """Never made, another's, deleted, idle for too long, too old, or without its conversation: the same words, which
        name the header where that is where the id came from."""
        never = ["sess_mine", "", "\0", "sess_" + "0" * 32]
        foreign = (await api.theirs.post(PATH, json={})).json()["id"]
        deleted, left, ended = [await make(api) for _ in range(3)]
        idle, old = await make(api, idle_timeout_s=10), await make(api, lifetime_s=10)
        gone = [each["id"] for each in (deleted, left, ended, idle, old)]
        await api.ours.delete(f"{PATH}/{deleted['id']}")
        await api.ours.delete(f"/v1/conversations/{left['conversation']['id']}")
        expires = {"expires_after": {"anchor": "created_at", "seconds": 10}}
        await api.ours.post(f"/v1/conversations/{ended['conversation']['id']}", json=expires)
        api.clock.now += 10
        bodies = set()
        for session_id in [*never, foreign, *gone]:
            with pytest.raises(NotFound) as raised:
                await resolved(api, session_id)
            assert (raised.value.code, raised.value.param) == ("not_found", "X-Session-ID")
            bodies.add(raised.value.message)
            if session_id.isprintable() and session_id:
                for method in ("GET", "DELETE"):
                    reply = await api.ours.request(method, f"{PATH}/{session_id}")
                    assert error(reply) == (404, "not_found", None)
                    bodies.add(reply.json()["error"]["message"])
        assert len(bodies) == 1
        assert (await resolved(api, foreign, THEIRS)).id == foreign

    async def test_the_sweeper(self, api: Api) -> None:
        """Takes what has ended out of the database, whoever's it is, and leaves what lives."""
        ended = [(await make(api, idle_timeout_s=10))["id"] for _ in range(3)]
        theirs = (await api.theirs.post(PATH, json={"lifetime_s": 10})).json()["id"]
        lives = await make(api)
        api.clock.now += 10
        await api.expiry.sweep()
        async with api.database.reading() as uow:
            for tenant, session_id in [*((OURS, each) for each in ended), (THEIRS, theirs)]:
                with pytest.raises(NotFound):
                    await uow.sessions.get(tenant, session_id)
        assert (await api.ours.get(f"{PATH}/{lives['id']}")).status_code == 200
        assert len((await api.ours.get("/v1/conversations")).json()["data"]) == 4
