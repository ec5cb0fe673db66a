"""A page on another port, in a real browser, against the real Dagster behind the guard."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget

from dagster_project.webserver import application
from tests.fixtures.browser import CHROMIUM, browser
from tests.fixtures.ports import free_port, running

MUTATION = """
mutation { reportRunlessAssetEvents(eventParams: {
  eventType: ASSET_MATERIALIZATION, assetKey: {path: ["thing"]} }) { __typename } }
"""
"""Writes to Dagster's event log, so that it shows whether it was executed."""
HOSTILE = """<!doctype html><title>waiting</title><body><script>
const url = "%s/graphql", query = %s;
const asked = url + "?query=" + encodeURIComponent(query), body = JSON.stringify({query});
const encoded = asked.replace("?query", "?%%71uery");
const wait = ms => new Promise(done => setTimeout(done, ms));
const form = async (method, enctype) => {
  const frame = document.createElement("iframe"), sent = document.createElement("form");
  frame.name = "frame" + Math.random(); document.body.append(frame, sent);
  Object.assign(sent, {action: url, method, enctype, target: frame.name});
  const field = document.createElement("input");
  Object.assign(field, {name: "query", value: query}); sent.append(field);
  sent.submit(); await wait(400);
};
const socket = () => new Promise(done => {
  const ws = new WebSocket(url.replace("http", "ws"), "graphql-ws");
  ws.onerror = ws.onclose = () => done("closed");
  ws.onopen = async () => {
    ws.send(JSON.stringify({type: "connection_init", payload: {}}));
    ws.send(JSON.stringify({id: "1", type: "start", payload: {query}}));
    await wait(800); done("open");
  };
});
const ways = {
  post_text: () => fetch(url, {method: "POST", mode: "no-cors", body}),
  post_json: () => fetch(
    url, {method: "POST", body, headers: {"content-type": "application/json"}}),
  get: () => fetch(asked, {mode: "no-cors"}),
  get_read: () => fetch(asked).then(answer => answer.text()),
  get_encoded: () => fetch(encoded, {mode: "no-cors"}),
  get_encoded_path: () => fetch(encoded.replace("/graphql", "/%%67raphql"), {mode: "no-cors"}),
  image: () => new Promise(done => {
    const i = new Image(); i.onload = i.onerror = done; i.src = asked; }),
  script: () => new Promise(done => {
    const s = document.createElement("script"); s.onload = s.onerror = done; s.src = asked;
    document.body.append(s); }),
  beacon: () => navigator.sendBeacon(url, new Blob([body], {type: "text/plain"})),
  form_get: () => form("get", "application/x-www-form-urlencoded"),
  form_post: () => form("post", "application/x-www-form-urlencoded"),
  form_text: () => form("post", "text/plain"),
  window: async () => { window.open(asked); await wait(400); },
  window_encoded: async () => { window.open(encoded); await wait(400); },
  socket,
};
(async () => {
  window.seen = {};
  for (const [name, way] of Object.entries(ways)) {
    try { const got = await way(); window.seen[name] = typeof got == "string" ? got : "sent"; }
    catch (error) { window.seen[name] = "refused"; }
  }
  await wait(500); document.title = "done";
})();
</script>"""


@pytest.fixture
def dagster(tmp_path: Path) -> Iterator[tuple[str, dg.DagsterInstance]]:
    """Dagster's server as `vggheads ui` runs it, on a module with one asset."""
    file = str(Path(__file__).with_name("small_definitions.py"))
    target = PythonFileTarget(file, None, str(tmp_path), "small")
    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        app, port = application(workspace, tmp_path), free_port()
        with running(uvicorn.Config(app, port=port, log_level="error")):
            yield f"http://127.0.0.1:{port}", instance


@contextmanager
def page(content: str) -> Iterator[str]:
    """A page on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_hostile_page_changes_and_reads_nothing(dagster, tmp_path: Path) -> None:
    url, instance = dagster
    own_name = url.replace("127.0.0.1", "evil.example")
    # A foreign name that leads to this machine, as after DNS rebinding.
    options = ("--host-resolver-rules=MAP evil.example 127.0.0.1", "--disable-popup-blocking")
    with (
        page(HOSTILE % (url, json.dumps(MUTATION))) as hostile,
        browser(tmp_path / "profile", hostile, options) as tab,
    ):
        tab.until("document.title == 'done'")
        seen = tab.run("window.seen")
        assert len(seen) == 15
        assert seen["socket"] == "closed"
        assert seen["post_json"] == seen["get_read"] == "refused"
        assert instance.get_latest_materialization_event(dg.AssetKey("thing")) is None
        tab.call("Page.navigate", url=f"{own_name}/graphql")
        tab.until("document.body.innerText.includes('Invalid host header')")
        # The same request of Dagster's own page is executed.
        tab.call("Page.navigate", url=f"{url}/locations")
        tab.until("document.title.includes('Dagster') || document.title == 'Code locations'")
        sent = {"method": "POST", "headers": {"content-type": "application/json"}}
        sent["body"] = json.dumps({"query": MUTATION})
        tab.run(
            f"fetch('/graphql', {json.dumps(sent)}).then(a => a.text()).then(t => window.got = t)"
        )
        assert "ReportRunlessAssetEventsSuccess" in tab.until("window.got")
    assert instance.get_latest_materialization_event(dg.AssetKey("thing")) is not None
