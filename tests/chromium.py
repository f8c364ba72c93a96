"""A headless Chromium driven over its own debugging protocol, with tornado's client."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from tornado.websocket import websocket_connect

FOUND = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)

# all text of a page, that of shadow roots too
TEXT = """(() => { const out = [];
  const walk = n => { if (n.nodeType === 3) out.push(n.data);
    if (n.shadowRoot) walk(n.shadowRoot);
    if (!["STYLE", "SCRIPT"].includes(n.tagName)) n.childNodes.forEach(walk); };
  walk(document.body); return out.join(" ").replace(/\\s+/g, " "); })()"""


def visit(url: str, folder: Path, wanted: str, dark: bool = False, size=(1200, 800), seconds: float = 30):
    """Text of a page once it holds `wanted` (or after `seconds`), its title, errors, and a screenshot."""
    command = [
        *(FOUND, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
        *("--remote-debugging-port=0", "--disable-background-networking", f"--user-data-dir={folder}"),
        "about:blank",
    ]
    environment = {**os.environ, "HOME": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        return asyncio.run(_visit(url, folder, wanted, dark, size, seconds))
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _visit(url, folder, wanted, dark, size, seconds):
    until = time.monotonic() + seconds
    said = folder / "DevToolsActivePort"
    # port and path, a line each; the file is there before they are
    while not (said.exists() and len(said.read_text().split()) == 2):
        assert time.monotonic() < until, "chromium did not start"
        await asyncio.sleep(0.05)
    port = said.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        [page] = [p for p in json.load(answer) if p["type"] == "page"]
    connection = await websocket_connect(page["webSocketDebuggerUrl"], max_message_size=2**26)
    errors, number = [], 0

    async def call(method, **params):
        nonlocal number
        number += 1
        await connection.write_message(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(await connection.read_message())
            if message.get("method") == "Runtime.exceptionThrown":
                errors.append(message["params"]["exceptionDetails"].get("exception", {}).get("description"))
            if message.get("id") == number:
                return message.get("result", {})

    async def value(expression):
        return (await call("Runtime.evaluate", expression=expression, returnByValue=True))["result"]["value"]

    await call("Runtime.enable")
    await call("Page.enable")
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await call("Emulation.setEmulatedMedia", features=[scheme])
    await call(
        "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
    )
    await call("Page.navigate", url=url)
    text = ""
    while time.monotonic() < until:
        await asyncio.sleep(0.2)
        text = await value(f"document.body ? {TEXT} : ''")
        if wanted in text:
            await asyncio.sleep(0.6)  # for the drawing after the text
            break
    picture = await call("Page.captureScreenshot", format="png")
    title = await value("document.title")
    connection.close()
    while await connection.read_message() is not None:
        pass
    await asyncio.sleep(0.1)  # for the socket below it
    return {"text": text, "title": title, "errors": errors, "png": base64.b64decode(picture["data"])}
