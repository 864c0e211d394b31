"""/v1/conversations over a real database: what is kept, what is shown, what is refused, and what nobody else sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from frontend.domain.conversations import PageRequest
from frontend.domain.errors import NotFound
from frontend.domain.storage import Database
from tests.support.compatibility import OF_CONVERSATIONS
from tests.support.conversations import HELLO, OURS, PATH, START, Api, api_for, error, make, texts, told


@pytest.fixture
async def api(sqlite_database: Database, smollm2: Path) -> AsyncIterator[Api]:
    async with api_for(sqlite_database, smollm2) as api:
        yield api


class TestWhatIsKept:
    @pytest.mark.compat(OF_CONVERSATIONS, "create, get, update, delete; `metadata`")
    async def test_a_life(self, api: Api) -> None:
        """A conversation comes back as it was made, changes where it is changed, and is gone when it is deleted."""
        made = await api.sdk.conversations.create(metadata={"topic": "travel"}, items=[HELLO])  # type: ignore[list-item]  # no `type`
        assert made.id.startswith("conv_")
        assert len(made.id) == len("conv_") + 32
        assert (made.metadata, made.created_at) == ({"topic": "travel"}, START)
        assert await api.sdk.conversations.retrieve(made.id) == made
        changed = await api.sdk.conversations.update(made.id, metadata={"topic": "food"})
        assert changed.metadata == {"topic": "food"}
        assert await api.sdk.conversations.retrieve(made.id) == changed
        deleted = await api.sdk.conversations.delete(made.id)
        assert (deleted.id, deleted.deleted) == (made.id, True)
        with pytest.raises(openai.NotFoundError):
            await api.sdk.conversations.retrieve(made.id)

    async def test_ours(self, api: Api) -> None:
        """Expiry, context switches and profile are shown with their defaults, and as they were sent."""
        plain = (await api.ours.post(PATH, json={})).json()
        assert {name: plain[name] for name in ("metadata", "expires_after", "expires_at", "profile")} == {
            "metadata": {},
            "expires_after": None,
            "expires_at": None,
            "profile": None,
        }
        switches = {
            "trim": True,
            "summary": True,
            "memory": True,
            "retrieval": True,
            "vector_store_ids": [],
            "budget_tokens": None,
        }
        assert plain["context"] == switches
        expires = {"anchor": "created_at", "seconds": 60}
        body = {"expires_after": expires, "context": {"memory": False, "budget_tokens": 100}, "profile": "concise"}
        made = (await api.ours.post(PATH, json=body)).json()
        assert (made["expires_after"], made["expires_at"], made["profile"]) == (expires, START + 60, "concise")
        assert made["context"] == switches | {"memory": False, "budget_tokens": 100}

    @pytest.mark.parametrize(
        ("change", "becomes"),
        [
            ({"metadata": {"b": "2"}}, {"metadata": {"b": "2"}}),
            ({"metadata": None}, {"metadata": {}}),
            ({"profile": "default@1"}, {"profile": "default@1"}),
            ({"profile": None}, {"profile": None}),
            ({"expires_after": None}, {"expires_after": None, "expires_at": None}),
            (
                {"context": {"trim": False}},
                {
                    "context": {
                        "trim": False,
                        "summary": False,
                        "memory": True,
                        "retrieval": True,
                        "vector_store_ids": [],
                        "budget_tokens": 9,
                    }
                },
            ),
        ],
    )
    async def test_what_is_not_sent_stays(self, api: Api, change: dict[str, Any], becomes: dict[str, Any]) -> None:
        """An update changes the fields that it names, inside of `context` too, and no others; so does reading it again."""
        conversation_id = await make(
            api,
            metadata={"a": "1"},
            expires_after={"anchor": "created_at", "seconds": 60},
            context={"summary": False, "budget_tokens": 9},
            profile="concise",
        )
        before = (await api.ours.get(f"{PATH}/{conversation_id}")).json()
        after = (await api.ours.post(f"{PATH}/{conversation_id}", json=change)).json()
        assert after == before | becomes
        assert (await api.ours.get(f"{PATH}/{conversation_id}")).json() == after

    @pytest.mark.parametrize(
        ("body", "code", "param"),
        [
            ({}, "missing_required_parameter", "metadata"),
            ({"items": []}, "unknown_parameter", "items"),
            ({"profile": "nobody"}, "invalid_value", "profile"),
            ({"profile": 1}, "invalid_value", "profile"),
            ({"context": {"trim": 1}}, "invalid_value", "context.trim"),
            ({"context": {"trim": None}}, "invalid_value", "context.trim"),
            ({"context": {"cut": True}}, "unknown_parameter", "context.cut"),
            ({"expires_after": {"anchor": "now", "seconds": 1}}, "invalid_value", "expires_after.anchor"),
            ({"expires_after": {"anchor": "created_at", "seconds": 0}}, "invalid_value", "expires_after.seconds"),
            ({"metadata": {"k" * 65: "v"}}, "invalid_value", "metadata"),
            ({"metadata": {"k": "v" * 513}}, "invalid_value", "metadata"),
            ({"metadata": {str(i): "v" for i in range(17)}}, "invalid_value", "metadata"),
        ],
    )
    async def test_wrong_bodies(self, api: Api, body: dict[str, Any], code: str, param: str) -> None:
        """Each is a 400 that names what is wrong, in an update and in a creation, and changes nothing."""
        conversation_id = await make(api, metadata={"a": "1"})
        assert error(await api.ours.post(f"{PATH}/{conversation_id}", json=body)) == (400, code, param)
        if body and "items" not in body:
            assert error(await api.ours.post(PATH, json=body)) == (400, code, param)
        assert (await api.ours.get(f"{PATH}/{conversation_id}")).json()["metadata"] == {"a": "1"}
        assert len((await api.ours.get(PATH)).json()["data"]) == 1


class TestTheList:
    @pytest.mark.compat(OF_CONVERSATIONS, "list, by `metadata[KEY]`", says="ours: OpenAI has no list")
    async def test_order_and_pages(self, api: Api) -> None:
        """Newest first by default; pages follow each other without a gap."""
        made = []
        for i in range(5):
            made.append(await make(api, metadata={"n": str(i)}))
            api.clock.now += 1
        newest_first = (await api.ours.get(PATH)).json()
        assert [each["id"] for each in newest_first["data"]] == made[::-1]
        assert (newest_first["first_id"], newest_first["last_id"], newest_first["has_more"]) == (
            made[-1],
            made[0],
            False,
        )
        first = (await api.ours.get(PATH, params={"order": "asc", "limit": 2})).json()
        second = (await api.ours.get(PATH, params={"order": "asc", "limit": 3, "after": first["last_id"]})).json()
        assert [each["id"] for each in first["data"] + second["data"]] == made
        assert (first["has_more"], second["has_more"]) == (True, False)

    async def test_by_metadata(self, api: Api) -> None:
        """All keys must match, exactly, whatever characters they have."""
        both = await make(api, metadata={"topic": "travel", "a b[ü]": "x&y=z"})
        travel = await make(api, metadata={"topic": "travel"})
        await make(api, metadata={"topic": "Travel"})

        async def found(**metadata: str) -> set[str]:
            query = {f"metadata[{key}]": value for key, value in metadata.items()}
            return {each["id"] for each in (await api.ours.get(PATH, params=query)).json()["data"]}

        assert await found(topic="travel") == {both, travel}
        assert await found(topic="travel", **{"a b[ü]": "x&y=z"}) == {both}
        assert await found(topic="travel", missing="") == set()
        assert await found(missing="") == set()

    @pytest.mark.parametrize(
        "query",
        [
            "metadata=x",
            "metadata[]=x",
            "metadata[a=x",
            "metadata[" + "k" * 65 + "]=x",
            "metadata[k]=" + "v" * 513,
            "metadata[k]=1&metadata[k]=2",
            "&".join(f"metadata[{i}]=x" for i in range(17)),
        ],
    )
    async def test_wrong_filters(self, api: Api, query: str) -> None:
        """A filter that cannot be read is refused, not passed over: it would show too much."""
        assert error(await api.ours.get(f"{PATH}?{query}")) == (400, "invalid_value", "metadata")

    @pytest.mark.parametrize("query", ["metadata[%ff]=x", "&".join(["a=b"] * 100)])
    async def test_unreadable_query_strings(self, api: Api, query: str) -> None:
        """Not UTF-8, or without end: 400."""
        assert error(await api.ours.get(f"{PATH}?{query}")) == (400, "invalid_value", None)

    async def test_expired_ones_leave_no_holes(self, api: Api) -> None:
        """A page is full even where expired conversations lie between those that it shows."""
        made = []
        for i in range(9):
            expires = {"expires_after": {"anchor": "created_at", "seconds": 10}} if i % 3 else {}
            made.append(await make(api, **expires))
        api.clock.now += 10
        first = (await api.ours.get(PATH, params={"limit": 2})).json()
        assert (len(first["data"]), first["has_more"]) == (2, True)
        second = (await api.ours.get(PATH, params={"limit": 2, "after": first["last_id"]})).json()
        assert (len(second["data"]), second["has_more"]) == (1, False)
        assert {each["id"] for each in first["data"] + second["data"]} == {made[0], made[3], made[6]}


ROUTES: list[tuple[str, str, object]] = [
    ("GET", "", None),
    ("POST", "", {"metadata": {}}),
    ("DELETE", "", None),
    ("GET", "/items", None),
    ("POST", "/items", {"items": [HELLO]}),
    ("GET", "/items/{item}", None),
    ("DELETE", "/items/{item}", None),
    ("GET", "/export", None),
    ("GET", "/context", None),
]


class TestWhatDoesNotExist:
    @pytest.mark.parametrize(("method", "path", "body"), ROUTES)
    async def test_another_tenants(self, api: Api, method: str, path: str, body: object) -> None:
        """A foreign conversation is answered in the same bytes as one that is not there, and stays as it is."""
        conversation_id = await make(api, metadata={"a": "1"}, items=[HELLO])
        before = (await api.ours.get(f"{PATH}/{conversation_id}")).json()
        item_id = (await api.ours.get(f"{PATH}/{conversation_id}/items")).json()["first_id"]
        url = f"{PATH}/{conversation_id}{path.format(item=item_id)}"
        foreign = await api.theirs.request(method, url, json=body)
        assert (await api.ours.get(f"{PATH}/{conversation_id}")).json() == before
        assert await texts(api, conversation_id) == ["Hello"]
        assert (await api.theirs.get(PATH)).json()["data"] == []
        await api.ours.delete(f"{PATH}/{conversation_id}")
        assert foreign.status_code == 404
        assert told(foreign) == told(await api.theirs.request(method, url, json=body))

    @pytest.mark.parametrize(("method", "path", "body"), ROUTES)
    async def test_one_that_has_expired(self, api: Api, method: str, path: str, body: object) -> None:
        """The same bytes from the second of its expiry on, though the sweeper has not come yet."""
        conversation_id = await make(api, items=[HELLO], expires_after={"anchor": "last_active_at", "seconds": 60})
        item_id = (await api.ours.get(f"{PATH}/{conversation_id}/items")).json()["first_id"]
        url = f"{PATH}/{conversation_id}{path.format(item=item_id)}"
        api.clock.now += 59
        assert (await api.ours.get(f"{PATH}/{conversation_id}")).status_code == 200
        api.clock.now += 1
        expired = await api.ours.request(method, url, json=body)
        await api.expiry.sweep()
        assert expired.status_code == 404
        assert told(expired) == told(await api.ours.request(method, url, json=body))

    async def test_an_item_of_another_conversation(self, api: Api) -> None:
        """Is not there, even if both are the same tenant's."""
        one, other = await make(api, items=[HELLO]), await make(api)
        item_id = (await api.ours.get(f"{PATH}/{one}/items")).json()["first_id"]
        for method in ("GET", "DELETE"):
            reply = await api.ours.request(method, f"{PATH}/{other}/items/{item_id}")
            assert error(reply) == (404, "not_found", None)
        assert await texts(api, one) == ["Hello"]

    @pytest.mark.parametrize("name", ["%00", "conv_%ff", "a" * 500, "conv'--", "%F0%9F%98%80", "conv_0"])
    async def test_names_that_nothing_has(self, api: Api, name: str) -> None:
        """404, without troubling the database with bytes that it cannot take."""
        conversation_id = await make(api)
        for path in (f"{PATH}/{name}", f"{PATH}/{name}/items", f"{PATH}/{conversation_id}/items/{name}"):
            assert error(await api.ours.get(path)) == (404, "not_found", None)

    async def test_activity_puts_the_end_off(self, api: Api) -> None:
        """With the anchor last_active_at a new item counts, with created_at it does not."""
        active = await make(api, expires_after={"anchor": "last_active_at", "seconds": 60})
        created = await make(api, expires_after={"anchor": "created_at", "seconds": 60})
        api.clock.now += 30
        for conversation_id in (active, created):
            assert (await api.ours.post(f"{PATH}/{conversation_id}/items", json={"items": [HELLO]})).status_code == 200
        api.clock.now += 30
        assert (await api.ours.get(f"{PATH}/{active}")).json()["expires_at"] == START + 90
        assert (await api.ours.get(f"{PATH}/{created}")).status_code == 404
        await api.expiry.sweep()
        assert await texts(api, active) == ["Hello"]


class TestDeletion:
    async def test_nothing_is_left(self, api: Api) -> None:
        """Items and sessions go with the conversation, caches are told, and others are not touched."""
        gone = await make(api, items=[HELLO])
        stays = await make(api, items=[HELLO])
        item_id = (await api.ours.get(f"{PATH}/{gone}/items")).json()["first_id"]
        session_id = (await api.ours.post("/v1/sessions", json={"conversation": gone})).json()["id"]
        await api.ours.delete(f"{PATH}/{gone}")
        assert api.forgotten == [(OURS, gone)]
        async with api.database.reading() as uow:
            assert await uow.items.find(OURS, [item_id]) == {}
            with pytest.raises(NotFound):
                await uow.items.page(OURS, gone, PageRequest(limit=1, order="asc"))
            with pytest.raises(NotFound):
                await uow.sessions.get(OURS, session_id)
        assert await texts(api, stays) == ["Hello"]


class TestQuotas:
    async def test_conversations(self, sqlite_database: Database, smollm2: Path) -> None:
        """Of one tenant so many: 400, which no SDK tries again; deleting one makes room, and others have their own."""
        async with api_for(sqlite_database, smollm2, most_per_tenant=2) as api:
            made = [await make(api) for _ in range(2)]
            reply = await api.ours.post(PATH, json={})
            assert error(reply) == (400, "quota_exceeded", None)
            assert "x-should-retry" not in reply.headers
            assert error(await api.ours.post("/v1/sessions", json={})) == (400, "quota_exceeded", None)
            assert (await api.theirs.post(PATH, json={})).status_code == 200
            await api.ours.delete(f"{PATH}/{made[0]}")
            await make(api)

    async def test_items(self, sqlite_database: Database, smollm2: Path) -> None:
        """Of one conversation so many, also of a new one; what would be too much is not added in part."""
        async with api_for(sqlite_database, smollm2, most_items=3) as api:
            assert error(await api.ours.post(PATH, json={"items": [HELLO] * 4})) == (400, "quota_exceeded", None)
            assert (await api.ours.get(PATH)).json()["data"] == []
            conversation_id = await make(api, items=[HELLO] * 2)
            reply = await api.ours.post(f"{PATH}/{conversation_id}/items", json={"items": [HELLO] * 2})
            assert error(reply) == (400, "quota_exceeded", None)
            assert len(await texts(api, conversation_id)) == 2


async def test_the_page_knows_all_of_it(api: Api) -> None:
    """Every route, its query parameters, and schemas for what goes in and out."""
    paths = api.page["paths"]
    assert {path for path in paths if path.startswith(PATH)} == {
        PATH,
        f"{PATH}/{{conversation_id}}",
        f"{PATH}/{{conversation_id}}/items",
        f"{PATH}/{{conversation_id}}/items/{{item_id}}",
        f"{PATH}/{{conversation_id}}/export",
        f"{PATH}/{{conversation_id}}/context",
    }
    named = {parameter["name"] for parameter in paths[f"{PATH}/{{conversation_id}}/items"]["get"]["parameters"]}
    assert named == {"conversation_id", "limit", "order", "after", "include", "include[]"}
    schemas = api.page["components"]["schemas"]
    assert {"CreateConversation", "ConversationBody", "ConversationExport", "SessionBody"} <= schemas.keys()
