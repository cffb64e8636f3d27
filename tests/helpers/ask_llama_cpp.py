"""Run as a script: what llama.cpp says of a GGUF file. Arguments: the file, and JSON of texts; prints JSON."""

import json
import sys
import urllib.request
from typing import Any

import xllamacpp


def ask(server: xllamacpp.Server, path: str, question: dict[str, Any]) -> dict[str, Any]:
    """Post a question to the engine's server, which listens on this machine alone."""
    request = urllib.request.Request(
        f"{server.listening_address}/{path}", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def main(path: str, texts: list[str]) -> None:
    """For every text: its tokens, and the log-probabilities of the likeliest tokens that may follow it."""
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = path, 64, 1, False
    params.cpuparams.n_threads = 1
    server, answers = xllamacpp.Server(params), []
    for text in texts:
        tokens = ask(server, "tokenize", {"content": text, "add_special": True})["tokens"]
        question = {"prompt": tokens, "max_tokens": 1, "temperature": 0, "logprobs": 20}
        (choice,) = ask(server, "v1/completions", question)["choices"]
        likely = {entry["id"]: entry["logprob"] for entry in choice["logprobs"]["content"][0]["top_logprobs"]}
        answers.append({"tokens": tokens, "log_probabilities": likely})
    sys.stdout.write("ANSWER" + json.dumps(answers) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
