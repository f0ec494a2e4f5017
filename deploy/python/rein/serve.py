"""Serves what a file holds: python -m rein.serve --verl FILE.py[:NAME] | --trl FILE.py:NAME | --reward FILE.py:NAME | --reasoning-gym
| --judge URL --model NAME | --environment FILE.py:NAME | --loss FILE.py:NAME | --torch-loss FILE.py:NAME

    python -m rein.serve --trl rewards.py:format_reward --address 127.0.0.1:7500      # rewards: [{remote: "127.0.0.1:7500"}]

Prints the address once it serves. --set KEY=VALUE gives the verl function, or rein.judge, a keyword (a JSON value, else text).
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import sys
from typing import Any, Callable

from rein import environments, losses, scoring
from rein.service import Service


def load(place: str, default: str = "") -> Callable[..., Any]:
    """The function NAME of FILE.py:NAME. SystemExit tells what is wrong."""
    file, _, name = place.partition(":")
    path = pathlib.Path(file).resolve()
    if not path.is_file():
        raise SystemExit(f"rein.serve: {file} does not exist")
    if not (name or default):
        raise SystemExit(f"rein.serve: {place} names no function: want {file}:NAME")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))  # files beside it can be imported, as when it is run
    spec.loader.exec_module(module)
    function = getattr(module, name or default, None)
    if not callable(function):
        found = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise SystemExit(f"rein.serve: {file} has no function {name or default}; it has: {', '.join(found) or 'none'}")
    return function


def keyword(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise SystemExit(f"rein.serve: --set wants KEY=VALUE, got {text}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rein.serve", description="Serves a reward function, an environment or a loss.")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--verl", metavar="FILE[:NAME]", help="a verl compute_score function (the default name)")
    kind.add_argument("--trl", metavar="FILE:NAME", help="a TRL reward function")
    kind.add_argument("--reward", metavar="FILE:NAME", help="f(prompt, completion, answer, columns)")
    kind.add_argument("--reasoning-gym", action="store_true", help="reasoning-gym's verifiers")
    kind.add_argument("--judge", metavar="URL", help="a model behind an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")
    kind.add_argument("--environment", metavar="FILE:NAME", help="a class with reset and step")
    kind.add_argument("--loss", metavar="FILE:NAME", help="f(batch) -> (loss, gradients)")
    kind.add_argument("--torch-loss", metavar="FILE:NAME", help="f(batch) -> loss, a torch.Tensor")
    parser.add_argument("--model", help="the judge's name there")
    parser.add_argument("--prompt-file", help="what the judge is asked, with {prompt}, {completion} and {answer}")
    parser.add_argument("--key-file", help="file with the judge's API key")
    parser.add_argument("--address", default="127.0.0.1:0", help="host:port to listen on (default: a free port)")
    parser.add_argument("--tls", help="folder with tls.crt, tls.key, ca.crt; needed where other machines call")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a keyword for the verl function or the judge, such as high=5")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--conversational", dest="chat", action="store_true", default=None, help="give the TRL function messages, also where prompts are text")
    form.add_argument("--text", dest="chat", action="store_false", help="give the TRL function text, also where prompts are messages")
    arguments = parser.parse_args()
    keywords = dict(map(keyword, arguments.set))
    if keywords and not (arguments.verl or arguments.judge):
        parser.error("--set has no effect without --verl or --judge")
    if (arguments.model or arguments.prompt_file or arguments.key_file) and not arguments.judge:
        parser.error("--model, --prompt-file and --key-file have no effect without --judge")
    if arguments.judge and not arguments.model:
        parser.error("--judge wants --model")
    if arguments.chat is not None and not arguments.trl:
        parser.error("--conversational and --text have no effect without --trl")
    if arguments.verl:
        service = scoring.verl(load(arguments.verl, "compute_score"), **keywords)
    elif arguments.trl:
        service = scoring.trl(load(arguments.trl), arguments.chat)
    elif arguments.reward or arguments.environment or arguments.loss or arguments.torch_loss:
        turn = scoring.reward if arguments.reward else environments.environment if arguments.environment \
            else losses.loss if arguments.loss else losses.torch_loss
        found = load(arguments.reward or arguments.environment or arguments.loss or arguments.torch_loss)
        service = found if isinstance(found, Service) else turn(found)
    elif arguments.judge:
        if arguments.prompt_file:
            keywords["prompt"] = pathlib.Path(arguments.prompt_file).read_text()
        if arguments.key_file:
            keywords["key"] = pathlib.Path(arguments.key_file).read_text().strip()
        service = scoring.judge(arguments.judge, arguments.model, **keywords)
    else:
        service = scoring.reasoning_gym()
    host = arguments.address.rpartition(":")[0]
    if not arguments.tls and host not in ("127.0.0.1", "localhost", "[::1]"):
        raise SystemExit(f"rein.serve: {arguments.address} is not of this machine alone: --tls FOLDER is needed")
    port = service.start(arguments.address, arguments.tls)
    print(f"{host}:{port}", flush=True)
    try:
        service.wait()
    except KeyboardInterrupt:
        service.stop()


if __name__ == "__main__":
    main()
