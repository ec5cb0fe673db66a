"""Pages of other origins, foreign host names and mutations by GET get nothing from the server."""

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from dagster_project.guard import ProjectFiles
from ml.imaging.io import encode_jpeg
from ml.inference.guard import guarded

OWN = "http://127.0.0.1:3000"
reached = []


async def graphql(request):
    reached.append(request.method)
    return PlainTextResponse("answered")


async def subscribe(socket):
    await socket.accept()
    await socket.send_text("subscribed")
    await socket.close()


@pytest.fixture
def client(tmp_path):
    reached.clear()
    (tmp_path / "data" / "images").mkdir(parents=True)
    image = encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    for name in ("data/images/a b#1.jpg", "secret.jpg", "data/images/table.parquet"):
        (tmp_path / name).write_bytes(image)
    (tmp_path / "data" / "link.jpg").symlink_to("/etc/hostname")
    routes = [
        Route("/graphql", graphql, methods=["GET", "POST"]),
        WebSocketRoute("/graphql", subscribe),
        # A server may know more notations of a path than Starlette does.
        Route("/{path:path}", graphql, methods=["GET", "POST"]),
    ]
    app = guarded(ProjectFiles(Starlette(routes=routes), tmp_path, "/project"))
    return TestClient(app, base_url=OWN)


@pytest.mark.parametrize(
    ("method", "query", "headers", "status"),
    [
        ("POST", "", {"origin": OWN}, 200),
        ("POST", "", {}, 200),
        ("GET", "", {"sec-fetch-site": "none"}, 200),
        ("GET", "?query=mutation{x}", {}, 405),
        ("GET", "?a=1&query=%6dutation{x}", {"origin": OWN}, 405),
        ("GET", "?%71uery=mutation{x}", {}, 405),
        ("HEAD", "?%71%75%65%72%79=mutation{x}", {}, 405),
        ("GET", "?anything", {}, 405),
        ("POST", "?op=Name", {"origin": OWN}, 200),
        ("HEAD", "?query={x}", {}, 405),
        ("POST", "", {"origin": "http://evil.example"}, 403),
        ("POST", "", {"origin": "http://127.0.0.1:8000"}, 403),
        ("POST", "", {"origin": "http://localhost:3000"}, 403),
        ("POST", "", {"origin": "null"}, 403),
        ("GET", "", {"origin": "http://evil.example"}, 403),
        ("GET", "", {"sec-fetch-site": "cross-site"}, 403),
        ("HEAD", "", {"sec-fetch-site": "same-site"}, 403),
        ("POST", "", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", "", {"sec-fetch-site": "same-site"}, 403),
        ("POST", "", {"host": "evil.example"}, 400),
        ("POST", "", {"host": "127.0.0.1.evil.example:3000"}, 400),
    ],
)
def test_only_the_server_s_own_pages_are_answered(client, method, query, headers, status):
    response = client.request(method, f"/graphql{query}", headers=headers)
    assert response.status_code == status
    assert bool(reached) == (status == 200)


@pytest.mark.parametrize(
    "path",
    ["/%67raphql", "/graphql/", "//graphql", "/prefix/graphql", "/GraphQL", "/%2567raphql",
     "/x%2Fgraphql"],
)  # fmt: skip
def test_no_notation_of_the_path_lets_a_query_through(client, path):
    assert client.get(f"{OWN}{path}?%71uery=mutation{{x}}").status_code == 405
    assert not reached
    # Dagster's pages have query strings.
    assert client.get(f"{OWN}{path}-like?view=list").status_code == 200


@pytest.mark.parametrize("path", ["/graphql", "/%67raphql"])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:8000", "http://localhost:3000", "null", ""]
)
def test_web_sockets_of_foreign_pages_are_closed(client, path, origin):
    address = f"ws://127.0.0.1:3000{path}"
    with client.websocket_connect(address, headers={"origin": OWN}) as socket:
        assert socket.receive_text() == "subscribed"
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(address, headers={"origin": origin}) as socket,
    ):
        socket.receive_text()


def test_images_of_the_project_and_nothing_else_are_given_out(client):
    assert client.get("/project/data/images/a%20b%231.jpg").headers["content-type"] == "image/jpeg"
    for path in (
        "secret.jpg", "data/../secret.jpg", "data/%2e%2e/secret.jpg", "data/images/table.parquet",
        "data/link.jpg", "%2Fetc/hostname", "data/none.jpg",
    ):  # fmt: skip
        assert client.get(f"/project/{path}").status_code == 404
    assert client.post("/project/data/images/a%20b%231.jpg").status_code == 404
