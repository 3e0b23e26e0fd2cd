"""Everything needs a key but what is on the list."""

import hashlib

import pytest
from starlette.routing import Route, WebSocketRoute

from engine.errors import ConfigError
from serve.http.auth import PUBLIC_PATHS
from serve.settings import ServerSettings
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio

KEY = "sk-ïngot-1"
LAST = "voilà"  # its last byte is a blank in Latin-1, as which headers are read
SETTINGS = ServerSettings(api_keys=("other", LAST, KEY))


def bearer(key: str) -> dict[str, bytes]:
    return {"authorization": b"Bearer " + key.encode()}


async def test_every_route_is_closed_unless_listed(serve: Serve) -> None:
    async with serve(SETTINGS) as served:
        for route in served.app.routes:
            assert isinstance(route, Route | WebSocketRoute)
            response = await served.http.get(route.path)
            assert (response.status_code != 401) == (route.path in PUBLIC_PATHS), route.path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/nothing",
        "http://test//health",
        "/health/",
        "/health/../v1/models",
        "/%2e%2e/health",
    ],
)
async def test_odd_paths_are_closed(serve: Serve, path: str) -> None:
    async with serve(SETTINGS) as served:
        response = await served.http.get(path, headers={"host": "a/health?x="})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(("path", "kind"), [("/v1/messages", "error"), ("/v1/models", None)])
async def test_the_refusal_reads_as_the_others_of_its_path(
    serve: Serve, path: str, kind: str | None
) -> None:
    async with serve(SETTINGS) as served:
        body = (await served.post(path)).json()
    assert body.get("type") == kind and body["error"]["type"] == "authentication_error"


async def test_the_right_keys_open(serve: Serve) -> None:
    async with serve(SETTINGS) as served:
        for key in SETTINGS.api_keys:
            response = await served.http.get("/v1/models", headers=bearer(key))
            assert response.status_code == 200
        lower = {"authorization": b"bearer  " + KEY.encode() + b" "}
        assert (await served.http.get("/v1/models", headers=lower)).status_code == 200


async def test_a_key_of_which_only_the_digest_is_told(serve: Serve) -> None:
    told, admin = (f"sha256:{hashlib.sha256(key).hexdigest()}" for key in (b"hidden", b"root"))
    settings = ServerSettings(api_keys=(told, "plain"), admin_api_key=admin)
    async with serve(settings) as served:
        for path, opens in (("/v1/models", {"hidden", "plain"}), ("/admin/state", {"root"})):
            for key in ("hidden", "plain", "root", told):  # who has read the settings has no key
                status = (await served.http.get(path, headers=bearer(key))).status_code
                assert (status == 200) == (key in opens), (path, key)


@pytest.mark.parametrize("key", ["sha256:", "sha256:abc", "sha256:" + "g" * 64, " "])
@pytest.mark.parametrize("field", ["api_keys", "admin_api_key"])
def test_keys_that_are_none(field: str, key: str) -> None:
    value = (key,) if field == "api_keys" else key
    with pytest.raises(ConfigError, match="api-key") as error:
        ServerSettings(**{field: value})
    assert key.strip() in ("", "sha256:") or key not in str(error.value)


async def test_near_misses_do_not_open(serve: Serve) -> None:
    wrong = [KEY[:end] for end in range(len(KEY))] + [KEY + "x", KEY.upper(), "\u00ff"]
    async with serve(SETTINGS) as served:
        for key in wrong:
            response = await served.http.get("/v1/models", headers=bearer(key))
            assert response.status_code == 401, key
        basic = {"authorization": b"Basic " + KEY.encode()}
        assert (await served.http.get("/v1/models", headers=basic)).status_code == 401
        assert (await served.http.get("/v1/models")).status_code == 401


@pytest.mark.parametrize("repeat", [False, True])
async def test_ids_are_made_by_the_server_and_a_clients_may_be_echoed(
    serve: Serve, repeat: bool
) -> None:
    sent_ids = {"mine-1": repeat, "": False, "a b": False, "x" * 129: False}
    async with serve(ServerSettings(enable_request_id_headers=repeat)) as served:
        for sent, echoed in sent_ids.items():
            answers = [
                (await served.http.get("/health", headers={"x-request-id": sent})).headers
                for _ in range(3)
            ]
            own = {each.get("x-ingot-request-id", each["x-request-id"]) for each in answers}
            assert len(own) == 3 and sent not in own
            assert {each["x-request-id"] for each in answers} == ({sent} if echoed else own)
        completion = await served.http.post(
            "/v1/completions", headers={"x-request-id": "mine"}, json={"prompt": "a"}
        )
        own = completion.headers["x-ingot-request-id" if repeat else "x-request-id"]
        assert completion.json()["id"] == f"cmpl-{own}"
