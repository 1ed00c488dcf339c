"""Who may ask the server for something."""

import asyncio

import pytest

from lifelong.errors import LifelongError
from lifelong.serving.application import Service
from lifelong.serving.entrance import COOKIE, Entrance, read_token
from lifelong.serving.entrance import TOKEN as VARIABLE
from lifelong.serving.limits import Limits, Rate, Room
from tests.serving.served import BASE, FREE, HERE, TOKEN, asked

OPEN = Entrance("127.0.0.1", None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_other_machines_need_a_token(host):
    with pytest.raises(LifelongError, match="lets other machines in, which needs a token: set LIFELONG_SERVE_TOKEN"):
        Entrance(host, None)
    assert Entrance(host, TOKEN).needs_token


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_this_machine_needs_none(host):
    assert not Entrance(host, None).needs_token


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8000", True),
        ("localhost:9999", True),  # through a tunnel
        ("LOCALHOST", True),
        ("[::1]:8000", True),
        ("evil.example:8000", False),  # DNS rebinding: the name of a stranger that leads here
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example@127.0.0.1", False),
        ("127.0.0.1,evil.example", False),
        ("127.0.0.1/evil", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_hosts(host, ours):
    assert (OPEN.stranger({"host": host}, "GET", "/v1/run") == "") == ours


def test_hosts_of_a_server_for_others():
    everywhere = Entrance("0.0.0.0", TOKEN, ["Models.Example."])
    assert everywhere.stranger({"host": "models.example:8000"}, "GET", "/") == ""
    assert everywhere.stranger({"host": "192.168.1.5:8000"}, "GET", "/") == ""  # no name can be bound to an address again
    assert "start it with --allow-host NAME" in everywhere.stranger({"host": "other.example"}, "GET", "/")
    assert OPEN.stranger({"host": "192.168.1.5:8000"}, "GET", "/") != ""


@pytest.mark.parametrize(
    ("origin", "same"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.0.0.1:8001", False),  # another server of this machine
        ("http://localhost:8000", False),
        ("http://evil.example", False),
        ("null", False),  # a sandboxed frame, or a file
        ("", False),
        ("file://", False),
        ("http://[", False),
    ],
)
def test_origins(origin, same):
    headers = {"host": "127.0.0.1:8000", "origin": origin}
    assert (OPEN.stranger(headers, "POST", "/v1/predict") == "") == same


def test_an_origin_behind_a_proxy_that_speaks_tls():
    entrance = Entrance("127.0.0.1", TOKEN, ["models.example"])
    assert entrance.stranger({"host": "models.example", "origin": "https://models.example"}, "POST", "/login") == ""


def test_what_a_browser_says_of_the_page():
    headers = {"host": "127.0.0.1:8000", "sec-fetch-site": "cross-site"}
    assert OPEN.stranger(headers, "GET", "/") == ""  # a link to the page
    assert OPEN.stranger(headers, "GET", "/v1/tasks") != ""
    assert OPEN.stranger(headers | {"sec-fetch-site": "same-site"}, "GET", "/v1/report") != ""  # another port of this machine
    assert OPEN.stranger(headers | {"sec-fetch-site": "same-origin"}, "GET", "/v1/tasks") == ""


def test_the_token_is_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_token(None) is None
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    monkeypatch.setenv(VARIABLE, f" {TOKEN}x ")
    assert read_token(None) == f"{TOKEN}x"
    assert read_token(tmp_path / "token") == TOKEN


@pytest.mark.parametrize("text", ["", "short", "with a space in between", "ünïcödé-ünïcödé-ünïcödé", "control\x07character-inside"])
def test_a_token_that_is_none(tmp_path, monkeypatch, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(LifelongError, match="is not 16 or more plain characters; make one: python -c"):
        read_token(tmp_path / "token")
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(LifelongError, match=rf"the token in \${VARIABLE}"):
        read_token(None)


def test_a_token_that_cannot_be_read(tmp_path):
    with pytest.raises(LifelongError, match=r"cannot read the token in .*none: No such file"):
        read_token(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff" * 30)
    with pytest.raises(LifelongError, match=r"cannot read the token in .*: not text"):
        read_token(tmp_path / "bytes")


def test_a_bucket_of_requests():
    now = [100.0]
    rate = Rate(2.0, 3, lambda: now[0])
    assert [rate.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.wait("b") == 0
    now[0] += 0.5
    assert [rate.wait("a"), rate.wait("a")] == [0, 0.5]
    now[0] += 1000
    assert [rate.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]  # never more than the bucket holds
    assert Rate(0.0, 1).wait("a") == 0


def test_addresses_of_one_network_share_a_bucket():
    rate = Rate(1.0, 1, lambda: 0.0)
    assert rate.wait("2001:db8::1") == 0
    assert rate.wait("2001:db8::ffff") > 0
    assert rate.wait("2001:db8:0:1::1") == 0


def test_the_buckets_are_bounded():
    rate = Rate(1.0, 1, lambda: 0.0)
    for number in range(Rate.MOST + 50):
        rate.wait(f"10.0.{number // 256}.{number % 256}")
    assert len(rate._buckets) == Rate.MOST


def test_room_is_given_in_the_order_of_coming():
    """As much as there is; who has gone takes none; what is larger than all of it gets all of it."""

    async def played():
        room, inside = Room(10), []

        async def take(name, wanted, leave):
            async with room.taken(wanted):
                inside.append(name)
                await leave.wait()
            inside.remove(name)

        async def settled():
            for _ in range(5):
                await asyncio.sleep(0)
            return sorted(inside)

        leave = {name: asyncio.Event() for name in "abcde"}
        tasks = {name: asyncio.create_task(take(name, wanted, leave[name])) for name, wanted in zip("abcde", (4, 4, 99, 3, 2), strict=True)}
        assert await settled() == ["a", "b"]
        leave["b"].set()
        assert await settled() == ["a"]  # "d" would fit, but "c" was first
        tasks["c"].cancel()
        assert await settled() == ["a", "d", "e"]
        for name in "ade":
            leave[name].set()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        leave["c"].set()
        await take("c", 99, leave["c"])
        return room._free, list(room._waiting)

    assert asyncio.run(played()) == (10, [])


def test_a_stranger_sends_no_more_than_a_token(guarded):
    answer = guarded.post("/login", files=[("image", ("image", bytes(100_000), "image/png"))])
    assert (answer.status_code, answer.json()["error"]) == (413, "more than 64 kB in one request; send fewer images at a time")


@pytest.fixture(scope="module")
def guarded(learned):
    service = Service(learned, HERE, FREE, read_only=True)
    with asked(service, Entrance("0.0.0.0", TOKEN, clock=lambda: CLOCK[0])) as client:
        yield client


CLOCK = [0.0]


@pytest.mark.parametrize("path", ["/v1/run", "/v1/tasks", "/v1/metrics", "/v1/report", "/v1/history", "/v1/none", "/other"])
@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ünï"]
)
def test_without_the_token_nothing_is_told(guarded, path, header):
    answer = guarded.get(path, headers={} if header is None else {"authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json() == {"error": "no token, or a wrong one; send the header Authorization: Bearer TOKEN"}


def test_with_the_token(guarded):
    assert guarded.get("/v1/run", headers={"authorization": f"bearer {TOKEN}"}).json()["method"] == "par"
    assert guarded.get("/v1/health").json() == {"status": "ok"}
    assert guarded.get("/page/page.css").status_code == 200


def test_a_person_logs_in_and_out(guarded):
    assert guarded.get("/").headers["location"] == "/login"
    assert 'name="token"' in guarded.get("/login").text
    wrong = guarded.post("/login", data={"token": "wrong"})
    assert wrong.status_code == 403
    assert "This is not the token" in wrong.text
    assert "set-cookie" not in wrong.headers
    there = guarded.post("/login", data={"token": TOKEN})
    assert (there.status_code, there.headers["location"]) == (303, "/")
    cookie = there.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    value = there.cookies[COOKIE]
    assert guarded.get("/v1/run", headers={"cookie": f"{COOKIE}={value}"}).status_code == 200
    assert guarded.get("/", headers={"cookie": f"{COOKIE}={value}"}).status_code == 200
    assert guarded.get("/v1/run", headers={"cookie": f"{COOKIE}={value}x"}).status_code == 401
    CLOCK[0] += 12 * 3600
    assert guarded.get("/v1/run", headers={"cookie": f"{COOKIE}={value}"}).status_code == 401
    value = guarded.post("/login", data={"token": TOKEN}).cookies[COOKIE]
    assert guarded.post("/logout", headers={"cookie": f"{COOKIE}={value}"}).status_code == 303
    assert guarded.get("/v1/run", headers={"cookie": f"{COOKIE}={value}"}).status_code == 401


def test_a_cookie_is_for_tls_alone_where_the_page_came_by_it(guarded):
    headers = {"host": "127.0.0.1", "origin": "https://127.0.0.1"}
    assert "Secure" in guarded.post("/login", data={"token": TOKEN}, headers=headers).headers["set-cookie"]


def test_the_token_cannot_be_guessed_quickly(learned):
    service = Service(learned, HERE, Limits(rate=0.0, logins=3), read_only=True)
    with asked(service, Entrance("127.0.0.1", TOKEN)) as client:
        codes = [client.post("/login", data={"token": f"guess-{number}"}).status_code for number in range(5)]
    assert codes == [403, 403, 403, 429, 429]


def test_too_many_requests(learned):
    with asked(Service(learned, HERE, Limits(rate=0.5, burst=3), read_only=True)) as client:
        answers = [client.get("/v1/health") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert int(answers[-1].headers["retry-after"]) in (1, 2, 3)


@pytest.mark.parametrize("path", ["/", "/login", "/page/main.js", "/v1/run", "/v1/none", "/v1/predict"])
def test_every_answer_carries_what_protects_the_page(client, path):
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] in ("no-store", "no-cache")
    assert "server" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers


def test_the_report_runs_no_script(client):
    answer = client.get("/v1/report")
    assert "learned with par" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.endswith("; sandbox")
    assert "script" not in policy


def test_a_foreign_page_cannot_drive_the_server(client):
    asked_for = [(method, route.path) for route in client.app._app.routes for method in route.methods]
    assert {("POST", "/v1/predict"), ("POST", "/v1/forget"), ("DELETE", "/v1/learning"), ("GET", "/v1/tasks")} <= {*asked_for}
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"host": "evil.example"}):
        for method, path in asked_for:
            followed = "sec-fetch-site" in headers and method == "GET" and path in ("/", "/login")  # a link to the page is harmless
            assert (client.request(method, path, headers=headers).status_code == 403) != followed, (method, path)
    preflight = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    assert client.options("/v1/drafts", headers=preflight).status_code == 403
    assert client.post("/v1/drafts", content='{"name": "x"}', headers={"content-type": "text/plain"}).status_code == 415
    assert BASE.startswith("http://127.0.0.1")
